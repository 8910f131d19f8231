//! Small files in memory: made whole with `FileLayout`, then edited by hand.

use std::sync::LazyLock;

use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::error::FormatError;
use pocketgpt_runtime::format::encode::FileLayout;
use pocketgpt_runtime::format::{Encoding, Header, Packing, Role, TensorEntry, WeightFile, header};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::quant::tile::{self, GROUP, ROWS};
use pocketgpt_runtime::quant::{pack_q3_block, pack_q4_block, pack_q8_block};
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::tokenizer::{AddedFlags, TokenizerBuilder, alphabet};
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

/// Places in the directory of [`config`]'s file.
pub const WTE: usize = 0;
pub const WPE: usize = 1;
pub const LN_1_WEIGHT: usize = 2;
pub const C_ATTN: usize = 4;
pub const C_ATTN_BIAS: usize = 5;
pub const ATTN_C_PROJ: usize = 6;
pub const C_FC: usize = 10;
pub const MLP_C_PROJ: usize = 12;
pub const LM_HEAD: usize = 16;
pub const TENSORS: usize = 17;

/// Where the sections of every file begin as long as nothing is moved.
pub const CONFIG: usize = 128;
pub const DIRECTORY: usize = 192;

/// One block, two heads, an untied head; the vocabulary is odd and `n_inner` no multiple of 32, so
/// that there are padded rows and padded inputs.
pub fn config() -> Gpt2Config {
    Gpt2Config {
        vocab_size: 17,
        n_ctx: 4,
        n_embd: 64,
        n_layer: 1,
        n_head: 2,
        n_inner: 40,
        activation: Activation::GeluNew,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        tied_head: false,
        layer_norm_epsilon: 1e-5,
        bos_token_id: Some(3),
        eos_token_id: None,
    }
}

/// Every encoding somewhere, both integer ones on a matrix with padding.
pub fn encoding(role: Role) -> Encoding {
    match role {
        Role::Wte | Role::MlpCProjWeight => Encoding::Q4,
        Role::CAttnWeight | Role::LmHead => Encoding::Q8,
        Role::Wpe | Role::AttnCProjWeight => Encoding::F16,
        _ => Encoding::F32,
    }
}

/// A file's bytes, beginning at a multiple of 64 in memory as a map does.
#[derive(Clone)]
pub struct FileBytes {
    lines: Vec<Line>,
    len: usize,
}

impl FileBytes {
    pub fn new(bytes: &[u8]) -> Self {
        let mut lines = vec![Line::ZERO; Line::count_for(bytes.len())];
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        Self { lines, len: bytes.len() }
    }

    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }

    pub fn open(&self) -> Result<WeightFile<'_>, FormatError> {
        WeightFile::new(self.bytes())
    }

    pub fn refused(&self) -> FormatError {
        self.open().expect_err("the file breaks a rule")
    }

    /// The rule that only reading everything finds.
    pub fn refused_by_verify(&self) -> FormatError {
        let file = self.open().expect("the rule is not one of those that opening checks");
        file.verify().expect_err("the file breaks a rule")
    }
}

/// What a file is made of.
pub struct Parts {
    pub config: Gpt2Config,
    pub tokenizer: Vec<u8>,
    pub metadata: String,
}

impl Default for Parts {
    fn default() -> Self {
        Self { config: config(), tokenizer: vec![], metadata: r#"{"tool":"test"}"#.into() }
    }
}

/// A file and what was written into it.
pub struct Written {
    pub file: FileBytes,
    pub entries: Vec<TensorEntry>,
    pub tensors: Vec<Vec<u8>>,
}

impl Parts {
    /// A whole and correct file with some numbers in it.
    pub fn build(&self, encoding: impl FnMut(Role, u16) -> Encoding) -> FileBytes {
        self.write(encoding, |entry| tensor(entry, entry.offset)).file
    }

    /// A file with these tensors, made as a writer makes it.
    pub fn write(
        &self,
        encoding: impl FnMut(Role, u16) -> Encoding,
        tensor: impl FnMut(&TensorEntry) -> Vec<u8>,
    ) -> Written {
        let (tokenizer, metadata) = (&self.tokenizer, &self.metadata);
        let mut layout = FileLayout::new(&self.config, tokenizer.len(), metadata.len(), encoding)
            .expect("a valid config");
        let tensors: Vec<_> = layout.entries.iter().map(tensor).collect();
        for (entry, bytes) in layout.entries.iter_mut().zip(&tensors) {
            assert_eq!(entry.len, bytes.len() as u64);
            entry.crc = crc32fast::hash(bytes);
        }
        let mut file = layout.encode_prefix(tokenizer, metadata);
        assert_eq!(file.len() as u64, layout.data_offset());
        for (entry, bytes) in layout.entries.iter().zip(&tensors) {
            file.resize(entry.offset as usize, 0);
            file.extend_from_slice(bytes);
        }
        file.resize(layout.file_len() as usize, 0);
        Written { file: FileBytes::new(&file), entries: layout.entries, tensors }
    }
}

/// The file that most tests damage, made once: under Miri it takes a second.
pub fn file() -> FileBytes {
    static FILE: LazyLock<FileBytes> =
        LazyLock::new(|| Parts::default().build(|role, _| encoding(role)));
    FILE.clone()
}

/// The 256 bytes, four merges and `<|endoftext|>`: 261 ids.
pub fn tokenizer() -> Vec<u8> {
    let mut builder = TokenizerBuilder::new();
    for byte in 0..=255 {
        builder.token(&alphabet::byte_to_char(byte).to_string(), byte.into());
    }
    for (id, (left, right)) in (256..).zip([("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o")]) {
        builder.token(&[left, right].concat(), id).merge(left, right);
    }
    builder.added_token("<|endoftext|>", 260, AddedFlags::SPECIAL);
    builder.build().expect("a valid tokenizer")
}

/// SplitMix64: the same numbers in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Integer, block scale and row scale of a quantized weight.
pub type Product = (i32, i32, f32);

/// A tensor's bytes. `float(row, col)` gives the weights of the float encodings; `product(row,
/// col)` those of the others, the block scale of the first input counting for its group.
pub fn pack(
    entry: &TensorEntry,
    float: impl Fn(usize, usize) -> f32,
    product: impl Fn(usize, usize) -> Product,
) -> Vec<u8> {
    let (rows, cols, encoding) = (entry.rows as usize, entry.cols as usize, entry.encoding);
    let number = |x: f32| match encoding {
        Encoding::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    if entry.packing == Packing::Rows {
        return (0..rows * cols).flat_map(|i| number(float(i / cols, i % cols))).collect();
    }
    let groups = tile::groups(cols);
    let mut out = vec![0; entry.len as usize];
    for (block, record) in out.chunks_exact_mut(tile::record_len(encoding, cols)).enumerate() {
        let row = |lane: usize| Some(block * ROWS + lane).filter(|&row| row < rows);
        if matches!(encoding, Encoding::F32 | Encoding::F16) {
            let lanes = (0..cols).flat_map(|col| (0..ROWS).map(move |lane| (lane, col)));
            let numbers = lanes.map(|(lane, col)| row(lane).map_or(0.0, |row| float(row, col)));
            let bytes: Vec<_> = numbers.flat_map(number).collect();
            record[..bytes.len()].copy_from_slice(&bytes);
            continue;
        }
        let mut values = vec![0i8; ROWS * groups * GROUP];
        let mut scales = vec![0i32; ROWS * groups];
        let mut row_scales = [0.0; ROWS];
        for (lane, row) in (0..ROWS).filter_map(|lane| Some((lane, row(lane)?))) {
            for col in 0..cols {
                let (q, b, s) = product(row, col);
                values[lane * groups * GROUP + col] = q as i8;
                if col % GROUP == 0 {
                    scales[lane * groups + col / GROUP] = b;
                }
                row_scales[lane] = s;
            }
        }
        if encoding == Encoding::Q8 {
            let scales: Vec<_> = scales.iter().map(|&b| b as u8).collect();
            pack_q8_block(&values, &scales, &row_scales, record);
        } else {
            let scales: Vec<_> = scales.iter().map(|&b| b as i8).collect();
            let pack = if encoding == Encoding::Q3 { pack_q3_block } else { pack_q4_block };
            pack(&values, &scales, &row_scales, record);
        }
    }
    out
}

/// A tensor of any values that a correct file may have; f16 holds the weights exactly.
pub fn tensor(entry: &TensorEntry, seed: u64) -> Vec<u8> {
    let any = |row: usize, col: usize| Numbers(seed ^ (row << 20 | col) as u64).next();
    let within = |any: u64, low: i32, high: i32| low + (any % (high - low + 1) as u64) as i32;
    let float = |any: u64| within(any, -255, 255) as f32 / 256.0;
    let q8 = entry.encoding == Encoding::Q8;
    let (low, high) = match entry.encoding {
        Encoding::Q8 => (-127, 127),
        Encoding::Q3 => (-4, 3),
        _ => (-8, 7),
    };
    let product = |row, col| {
        let q = within(any(row, col), low, high);
        let b = any(row, col) >> 32;
        let b = if q8 { within(b, 0, 255) } else { within(b, -127, 127) };
        (q, b, float(any(row, 0)) / 1024.0)
    };
    pack(entry, |row, col| float(any(row, col)), product)
}

/// Writes the header's CRC anew.
pub fn seal_header(bytes: &mut [u8]) {
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
}

/// Writes the CRC of a section anew (0 config, 1 directory, 2 tokenizer, 3 metadata), and that of
/// the header.
pub fn seal(bytes: &mut [u8], section: usize) {
    let at = 16 + 16 * section;
    let (start, len) = (u64_at(bytes, at) as usize, u64_at(bytes, at + 8) as usize);
    let crc = crc32fast::hash(&bytes[start..start + len]);
    bytes[96 + 4 * section..][..4].copy_from_slice(&crc.to_le_bytes());
    seal_header(bytes);
}

/// Puts parts of any length together as the document says, whatever is in them: what
/// `FileLayout` cannot make because it makes no wrong files.
pub fn assemble(parts: [&[u8]; 4], data: &[u8], tensor_count: u32) -> FileBytes {
    let mut out = vec![0; 128];
    let mut place = |part: &[u8], align: usize| {
        out.resize(out.len().next_multiple_of(align), 0);
        let offset = out.len() as u64;
        out.extend_from_slice(part);
        header::Span { offset, len: part.len() as u64 }
    };
    let sections = parts.map(|part| place(part, 64));
    let data = place(data, 4096);
    let file_len = out.len() as u64;
    let section_crcs = parts.map(crc32fast::hash);
    let header = Header { file_len, sections, data, section_crcs, tensor_count };
    out[..128].copy_from_slice(&header.encode());
    FileBytes::new(&out)
}

/// The parts of a correct file, for [`assemble`].
pub fn parts(file: &FileBytes) -> ([&[u8]; 4], &[u8]) {
    let bytes = file.bytes();
    let part = |at: usize| &bytes[u64_at(bytes, at) as usize..][..u64_at(bytes, at + 8) as usize];
    ([part(16), part(32), part(48), part(64)], part(80))
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Feeds two tokens, the first and the last of the vocabulary, on the specification and on the
/// fastest kernels; gives both sets of logits. What the numbers are does not matter: hostile
/// weights may give NaNs, never a panic.
pub fn two_steps(file: WeightFile<'_>) -> [Vec<f32>; 2] {
    let config = *file.config();
    let options = SessionOptions::new(&config);
    let mut memory = vec![Line::ZERO; Plan::new(&config, &options).expect("small").lines()];
    [Isa::Scalar, Isa::best()].map(|isa| {
        let model = Gpt2::new(file, Kernels::for_isa(isa).expect("scalar, or what was found"));
        let mut session = Session::new(model, &options, &mut memory).expect("memory as planned");
        let mut logits = session.feed(&[0], &Serial).expect("the first position").to_vec();
        if session.remaining() > 0 {
            let last = config.vocab_size - 1;
            logits.extend_from_slice(session.feed(&[last], &Serial).expect("a position is left"));
        }
        logits
    })
}
