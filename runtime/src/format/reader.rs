//! Validate once, then views that cannot fail.

use super::header::{Header, decode_config};
use super::tensor::{ENTRY_LEN, TensorEntry, index_of, tensor_count};
use super::{ALIGN, DATA_ALIGN, Encoding, Packing, Role};
use crate::config::Gpt2Config;
use crate::error::{FormatError, Section};
use crate::quant::tile::{self, QuantRecord, ROWS};
use crate::tokenizer::TokenizerView;

/// A `.pgpt` file in memory, its header and directory proven.
///
/// Opening touches header, config, directory and a few bytes of the tokenizer, no tensor.
#[derive(Clone, Copy, Debug)]
pub struct WeightFile<'a> {
    bytes: &'a [u8],
    header: Header,
    config: Gpt2Config,
}

/// One tensor: its directory entry and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// The directory entry.
    pub entry: TensorEntry,
    /// The bytes, `entry.len` of them, beginning at a multiple of 64 in memory.
    pub bytes: &'a [u8],
}

impl<'a> WeightFile<'a> {
    /// Proves the file: every offset, length and count, and the CRCs of header, config and
    /// directory. Takes microseconds; [`WeightFile::verify`] reads the rest.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FormatError> {
        // The header first: what is no such file at all should be told so, wherever it lies.
        let header = Header::decode(bytes)?;
        if !(bytes.as_ptr() as usize).is_multiple_of(ALIGN) {
            return Err(FormatError::Misaligned);
        }
        let section = |i: usize| {
            let span = header.sections[i];
            &bytes[span.offset as usize..(span.offset + span.len) as usize]
        };
        let crc_holds = |i: usize| {
            if crc32fast::hash(section(i)) == header.section_crcs[i] {
                return Ok(());
            }
            Err(FormatError::SectionCrc { section: Section::IN_ORDER[i] })
        };
        crc_holds(0)?;
        let config = decode_config(section(0))?;

        let expected = tensor_count(&config) as u32;
        if header.tensor_count != expected {
            return Err(FormatError::TensorCount { expected, found: header.tensor_count });
        }
        let directory = section(1);
        let expected = u64::from(expected) * ENTRY_LEN as u64;
        if directory.len() as u64 != expected {
            return Err(FormatError::DirectoryLength { expected, found: directory.len() as u64 });
        }
        crc_holds(1)?;
        let mut end = header.data.offset;
        for (i, entry) in directory.as_chunks().0.iter().enumerate() {
            end = TensorEntry::decode(entry, &config, i, end)?.end();
        }
        let expected = super::align_up(end, ALIGN).unwrap_or(u64::MAX);
        if header.file_len != expected {
            return Err(FormatError::DataLength { expected, found: header.file_len });
        }

        let file = Self { bytes, header, config };
        file.check_padding()?;
        if let Some(tokenizer) = file.tokenizer()? {
            let found = tokenizer.vocab_size();
            if found > config.vocab_size {
                let vocab_size = config.vocab_size;
                return Err(FormatError::TokenizerTooLarge { found, vocab_size });
            }
        }
        Ok(file)
    }

    /// The zeros between the sections.
    fn check_padding(&self) -> Result<(), FormatError> {
        let mut end = super::header::HEADER_LEN;
        let starts = self.header.sections.iter().zip(Section::IN_ORDER);
        for (span, section) in starts.chain([(&self.header.data, Section::Data)]) {
            if self.bytes[end..span.offset as usize].iter().any(|&b| b != 0) {
                return Err(FormatError::PaddingNotZero { section });
            }
            end = (span.offset + span.len) as usize;
        }
        Ok(())
    }

    fn section(&self, i: usize) -> &'a [u8] {
        let span = self.header.sections[i];
        &self.bytes[span.offset as usize..(span.offset + span.len) as usize]
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The model's sizes.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// The whole file.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What tells the file from others: its length and the CRC-32 in its header, which depends,
    /// through those of the sections and tensors, on every byte.
    pub fn identity(&self) -> (u64, u32) {
        (self.header.file_len, super::u32_at(self.bytes, super::header::HEADER_LEN - 4))
    }

    /// The tokenizer, if the file has one.
    ///
    /// # Errors
    /// If its tables break a rule; a file that [`WeightFile::new`] accepted has none that do.
    pub fn tokenizer(&self) -> Result<Option<TokenizerView<'a>>, FormatError> {
        let bytes = self.section(2);
        if bytes.is_empty() {
            return Ok(None);
        }
        TokenizerView::new(bytes).map(Some).map_err(FormatError::Tokenizer)
    }

    /// JSON text about source, recipe and quality.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn metadata(&self) -> Result<&'a str, FormatError> {
        core::str::from_utf8(self.section(3)).map_err(|_| FormatError::MetadataNotUtf8)
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = TensorView<'a>> + use<'a> {
        let file = *self;
        (0..tensor_count(&self.config)).map(move |i| file.tensor_at(i))
    }

    fn tensor_at(&self, index: usize) -> TensorView<'a> {
        let raw = self.section(1).as_chunks::<ENTRY_LEN>().0[index];
        let offset = super::u64_at(&raw, 16);
        let entry = TensorEntry::decode(&raw, &self.config, index, offset)
            .expect("the directory was proven at open");
        let bytes = &self.bytes[entry.offset as usize..entry.end() as usize];
        TensorView { entry, bytes }
    }

    /// One tensor; `layer` counts for roles of a block only.
    ///
    /// # Panics
    /// If the file has no such tensor: a layer too high, or `lm_head` when it is tied.
    pub fn tensor(&self, role: Role, layer: usize) -> TensorView<'a> {
        self.tensor_at(index_of(&self.config, role, layer))
    }

    /// The matrix that makes logits: `lm_head`, or `wte` when tied.
    pub fn head(&self) -> TensorView<'a> {
        self.tensor(if self.config.tied_head { Role::Wte } else { Role::LmHead }, 0)
    }

    /// Reads everything: all CRCs, the tokenizer's tables, paddings, and that scales and floats
    /// are finite and integers within ±127.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn verify(&self) -> Result<(), FormatError> {
        for (i, section) in Section::IN_ORDER.into_iter().enumerate() {
            if crc32fast::hash(self.section(i)) != self.header.section_crcs[i] {
                return Err(FormatError::SectionCrc { section });
            }
        }
        self.metadata()?;
        if let Some(tokenizer) = self.tokenizer()? {
            tokenizer.verify().map_err(FormatError::Tokenizer)?;
        }
        for (i, tensor) in self.tensors().enumerate() {
            let end = tensor.entry.end() as usize;
            let padded = end.next_multiple_of(ALIGN);
            if self.bytes[end..padded].iter().any(|&b| b != 0) {
                return Err(FormatError::TensorPadding { tensor: i as u32 });
            }
            tensor.verify(i as u32)?;
        }
        Ok(())
    }
}

impl<'a> TensorView<'a> {
    /// Numbers of an f32 tensor stored row after row.
    ///
    /// # Panics
    /// If it is stored otherwise.
    pub fn f32s(&self) -> &'a [f32] {
        assert_eq!((self.entry.encoding, self.entry.packing), (Encoding::F32, Packing::Rows));
        bytemuck::cast_slice(self.bytes)
    }

    /// Bytes of one record of 16 rows.
    pub fn record_len(&self) -> usize {
        tile::record_len(self.entry.encoding, self.entry.cols as usize)
    }

    /// The records of a matrix.
    pub fn records(&self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.bytes.chunks_exact(self.record_len())
    }

    fn verify(&self, tensor: u32) -> Result<(), FormatError> {
        if crc32fast::hash(self.bytes) != self.entry.crc {
            return Err(FormatError::TensorCrc { tensor });
        }
        let (rows, cols) = (self.entry.rows as usize, self.entry.cols as usize);
        let floats = |bytes: &[u8]| match self.entry.encoding {
            Encoding::F16 => {
                bytes.as_chunks::<2>().0.iter().all(|&b| half::f16::from_le_bytes(b).is_finite())
            }
            _ => bytes.as_chunks::<4>().0.iter().all(|&b| f32::from_le_bytes(b).is_finite()),
        };
        if self.entry.packing == Packing::Rows {
            return if floats(self.bytes) {
                Ok(())
            } else {
                Err(FormatError::NotFinite { tensor })
            };
        }
        for (block, record) in self.records().enumerate() {
            let used = rows - block * ROWS;
            match self.entry.encoding {
                Encoding::F32 | Encoding::F16 => {
                    if !floats(record) {
                        return Err(FormatError::NotFinite { tensor });
                    }
                    // Not from the record's length, which padding may double (f16, one input).
                    let width = if self.entry.encoding == Encoding::F16 { 2 } else { 4 };
                    let (lanes, tail) = record.split_at(width * ROWS * cols);
                    let unused =
                        lanes.chunks_exact(width * ROWS).map(|l| &l[width * used.min(ROWS)..]);
                    if unused.chain([tail]).flatten().any(|&b| b != 0) {
                        return Err(FormatError::TensorPadding { tensor });
                    }
                }
                Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => {
                    verify_quantized(record, self.entry.encoding, used, cols)
                        .map_err(|rule| rule(tensor))?;
                }
            }
        }
        Ok(())
    }
}

/// Checks a quantized record of which `used` rows count.
fn verify_quantized(
    record: &[u8],
    encoding: Encoding,
    used: usize,
    cols: usize,
) -> Result<(), fn(u32) -> FormatError> {
    let groups = tile::groups(cols);
    let view = QuantRecord::new(record, groups);
    let scales = &record[tile::ROW_SCALES_BYTES..tile::weights_offset(groups)];
    if scales[groups * ROWS..].iter().any(|&b| b != 0) {
        return Err(|tensor| FormatError::TensorPadding { tensor });
    }
    for lane in 0..ROWS {
        if !view.row_scale(lane).is_finite() {
            return Err(|tensor| FormatError::NotFinite { tensor });
        }
        let block_scales = || (0..groups).map(|g| view.block_scales(g)[lane]);
        if lane >= used && (view.row_scale(lane).to_bits() != 0 || block_scales().any(|b| b != 0)) {
            return Err(|tensor| FormatError::TensorPadding { tensor });
        }
    }
    let minus_128 = |bytes: &[u8]| bytes.contains(&0x80);
    let out_of_range = match encoding {
        Encoding::Q8 => minus_128(view.weights()),
        _ => minus_128(scales),
    };
    if out_of_range {
        return Err(|tensor| FormatError::OutsideRange { tensor });
    }
    let zero = match encoding {
        Encoding::Q8 => 0,
        Encoding::Q3 => 4,
        _ => 8,
    };
    let value = |lane, col| match encoding {
        Encoding::Q3 => tile::q3_value(view.weights(), lane, col),
        Encoding::Q8 => view.weights()[tile::q8_index(lane, col)],
        _ => {
            let (byte, high) = tile::q4_index(lane, col);
            (view.weights()[byte] >> (4 * u32::from(high))) & 15
        }
    };
    for lane in 0..ROWS {
        let first = if lane < used { cols } else { 0 };
        if (first..groups * tile::GROUP).any(|col| value(lane, col) != zero) {
            return Err(|tensor| FormatError::TensorPadding { tensor });
        }
    }
    Ok(())
}

/// Pages the data section begins at: what a reader may advise the kernel about.
impl WeightFile<'_> {
    /// Byte range of the tensors in the file; begins at a multiple of 4096.
    pub fn data_range(&self) -> core::ops::Range<usize> {
        let start = self.header.data.offset as usize;
        debug_assert!(start.is_multiple_of(DATA_ALIGN));
        start..start + self.header.data.len as usize
    }
}
