//! The writer's half: where everything goes, and the bytes before the tensor data.

use alloc::vec::Vec;

use super::header::{CONFIG_LEN, HEADER_LEN, Header, Span, encode_config};
use super::tensor::{ENTRY_LEN, TensorEntry, canonical, tensor_count};
use super::{ALIGN, DATA_ALIGN, Encoding, Role, align_up};
use crate::config::Gpt2Config;
use crate::error::ConfigError;

/// Where every part of a file of this config and these encodings will be.
#[derive(Clone, Debug)]
pub struct FileLayout {
    config: Gpt2Config,
    sections: [Span; 4],
    data: Span,
    /// The directory, in file order, CRCs still zero: fill them in before
    /// [`FileLayout::encode_prefix`].
    pub entries: Vec<TensorEntry>,
}

impl FileLayout {
    /// Lays out a file. `encoding` chooses per tensor (role, layer) how it is stored; a tensor
    /// that may not be stored that way (a bias in q4) becomes f32.
    ///
    /// # Errors
    /// If the config is not valid.
    pub fn new(
        config: &Gpt2Config,
        tokenizer_len: usize,
        metadata_len: usize,
        mut encoding: impl FnMut(Role, u16) -> Encoding,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        let count = tensor_count(config);
        let mut end = HEADER_LEN as u64;
        let mut place = |len: usize, align| {
            let offset = align_up(end, align).expect("sections of less than 2^63 bytes");
            end = offset + len as u64;
            Span { offset, len: len as u64 }
        };
        let sections = [CONFIG_LEN, count * ENTRY_LEN, tokenizer_len, metadata_len]
            .map(|len| place(len, ALIGN));
        let start = place(0, DATA_ALIGN).offset;
        let mut entries = Vec::with_capacity(count);
        let mut end = start;
        for index in 0..count {
            let (role, layer) = canonical(config, index);
            let wanted = encoding(role, layer);
            let wanted = if role.allows(wanted) { wanted } else { Encoding::F32 };
            let entry = TensorEntry::expected(config, index, wanted, end)
                .expect("a validated config has sizes far below 2^63");
            end = entry.end();
            entries.push(entry);
        }
        let file_len = align_up(end, ALIGN).expect("far below 2^63");
        let data = Span { offset: start, len: file_len - start };
        Ok(Self { config: *config, sections, data, entries })
    }

    /// Length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.data.offset + self.data.len
    }

    /// First byte of the tensor data: the length of the prefix.
    pub fn data_offset(&self) -> u64 {
        self.data.offset
    }

    /// Everything before the tensor data.
    ///
    /// # Panics
    /// If tokenizer or metadata have another length than was laid out.
    pub fn encode_prefix(&self, tokenizer: &[u8], metadata: &str) -> Vec<u8> {
        let directory: Vec<u8> = self.entries.iter().flat_map(TensorEntry::encode).collect();
        let config = encode_config(&self.config);
        let parts: [&[u8]; 4] = [&config, &directory, tokenizer, metadata.as_bytes()];
        let mut out = Vec::with_capacity(self.data.offset as usize);
        out.resize(HEADER_LEN, 0);
        for (span, part) in self.sections.iter().zip(parts) {
            assert_eq!(span.len, part.len() as u64, "laid out for another length");
            out.resize(span.offset as usize, 0);
            out.extend_from_slice(part);
        }
        out.resize(self.data.offset as usize, 0);
        let header = Header {
            file_len: self.file_len(),
            sections: self.sections,
            data: self.data,
            section_crcs: parts.map(crc32fast::hash),
            tensor_count: self.entries.len() as u32,
        };
        out[..HEADER_LEN].copy_from_slice(&header.encode());
        out
    }
}
