//! `.pgpt` files in memory: whole ones of any small shape, and mutations that keep the checksums
//! right, so that the fuzzer reaches what lies behind them.

use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::format::encode::FileLayout;
use pocketgpt_runtime::format::{Encoding, TensorEntry};
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::tokenizer::{AddedFlags, TokenizerBuilder, alphabet};

use crate::numbers::Numbers;

/// Length of the header, and where the config begins.
const CONFIG: usize = 128;
/// Where the directory begins.
const DIRECTORY: usize = 192;

/// Bytes that begin at a multiple of 64 in memory and end where an allocation ends, so that a
/// sanitizer sees a read behind them: they are as long as the file, rounded up to 64.
pub struct Aligned {
    lines: Box<[Line]>,
    len: usize,
}

impl Aligned {
    /// A copy.
    pub fn new(bytes: &[u8]) -> Self {
        let mut lines = vec![Line::ZERO; Line::count_for(bytes.len())].into_boxed_slice();
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        Self { lines, len: bytes.len() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) as usize
}

fn put_u64(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

/// Writes all checksums anew that can be: of the parts that lie within the file, of the tensors
/// that the directory places there, and of the header.
pub fn seal(bytes: &mut [u8]) {
    let len = bytes.len();
    if len < CONFIG {
        return;
    }
    let part = |bytes: &[u8], at: usize| {
        let (start, len) = (u64_at(bytes, at), u64_at(bytes, at + 8));
        Some(start..start.checked_add(len)?).filter(|range| range.end <= bytes.len())
    };
    if let Some(directory) = part(bytes, 32) {
        for entry in directory.step_by(64).filter(|entry| entry + 64 <= len) {
            if let Some(tensor) = part(bytes, entry + 16) {
                let crc = crc32fast::hash(&bytes[tensor]);
                bytes[entry + 32..entry + 36].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
    for section in 0..4 {
        if let Some(range) = part(bytes, 16 + 16 * section) {
            let crc = crc32fast::hash(&bytes[range]);
            bytes[96 + 4 * section..][..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
}

/// How the numbers of a made file come about.
#[derive(Clone, Copy)]
pub enum Fill {
    /// As a writer would: finite, of a size that a model has.
    Sound,
    /// Any bytes.
    Any,
    /// The same byte everywhere.
    Byte(u8),
}

/// A file of a random small shape.
pub fn random_file(random: &mut Numbers, fill: Fill) -> Vec<u8> {
    let heads = 1 + random.below(3) as u32;
    let head = random.pick(&[32, 33, 40, 48, 64, 80, 127, 128]);
    let n_embd = heads * head;
    let tokenizer = if random.below(3) == 0 { random_tokenizer(random) } else { vec![] };
    let vocab = random.pick(&[1, 2, 15, 16, 17, 33]);
    let token = |random: &mut Numbers| (random.below(2) == 0).then_some(0);
    let config = Gpt2Config {
        vocab_size: if tokenizer.is_empty() { vocab } else { 300 },
        n_ctx: random.pick(&[1, 2, 3, 5, 8, 65]),
        n_embd,
        n_layer: 1 + random.below(2) as u32,
        n_head: heads,
        n_inner: random.pick(&[1, 16, 20, 31, 32, 33, 64, 100]),
        activation: random.pick(&[
            Activation::GeluNew,
            Activation::Gelu,
            Activation::Relu,
            Activation::Silu,
        ]),
        scale_attn_weights: random.below(2) == 0,
        scale_attn_by_inverse_layer_idx: random.below(2) == 0,
        tied_head: random.below(2) == 0,
        layer_norm_epsilon: random.pick(&[1e-5, 1.0, f32::MIN_POSITIVE, f32::from_bits(1)]),
        bos_token_id: token(random),
        eos_token_id: token(random),
    };
    let encodings = [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3];
    let all = (random.below(2) == 0).then(|| random.pick(&encodings));
    file(&config, &tokenizer, |_| all.unwrap_or_else(|| random.pick(&encodings)), fill)
}

/// A whole file of this config.
pub fn file(
    config: &Gpt2Config,
    tokenizer: &[u8],
    mut encoding: impl FnMut(usize) -> Encoding,
    fill: Fill,
) -> Vec<u8> {
    let metadata = r#"{"tool":"fuzz"}"#;
    let mut count = 0;
    let layout = FileLayout::new(config, tokenizer.len(), metadata.len(), |_, _| {
        count += 1;
        encoding(count - 1)
    })
    .expect("a valid config");
    let mut bytes = layout.encode_prefix(tokenizer, metadata);
    bytes.resize(layout.file_len() as usize, 0);
    let mut random = Numbers::new(layout.file_len());
    for entry in &layout.entries {
        let tensor = &mut bytes[entry.offset as usize..entry.end() as usize];
        match fill {
            Fill::Byte(byte) => tensor.fill(byte),
            Fill::Any => tensor.fill_with(|| random.next() as u8),
            Fill::Sound => sound(entry, tensor, &mut random),
        }
    }
    seal(&mut bytes);
    bytes
}

/// Numbers that `verify` accepts but for the padding, which stays as they are.
fn sound(entry: &TensorEntry, tensor: &mut [u8], random: &mut Numbers) {
    let mut number = || random.below(2001) as f32 / 1000.0 - 1.0;
    match entry.encoding {
        Encoding::F32 => {
            for chunk in tensor.chunks_exact_mut(4) {
                chunk.copy_from_slice(&number().to_le_bytes());
            }
        }
        // The upper byte of a small number, of either sign.
        Encoding::F16 => tensor.chunks_exact_mut(2).for_each(|chunk| {
            chunk.copy_from_slice(&[0x55, if number() < 0.0 { 0xa8 } else { 0x28 }])
        }),
        Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => {
            tensor.fill_with(|| ((number() * 60.0) as i8) as u8);
            let record = tensor.len() / (entry.rows as usize).div_ceil(16);
            for record in tensor.chunks_exact_mut(record) {
                for scale in record[..64].chunks_exact_mut(4) {
                    scale.copy_from_slice(&(number() / 4096.0).to_le_bytes());
                }
            }
        }
    }
}

/// The 256 bytes, some merges between tokens that there are, and added tokens.
pub fn random_tokenizer(random: &mut Numbers) -> Vec<u8> {
    let mut builder = TokenizerBuilder::new();
    builder.add_prefix_space(random.below(2) == 0);
    let mut tokens: Vec<String> =
        (0..=255).map(|byte| alphabet::byte_to_char(byte).to_string()).collect();
    for _ in 0..random.below(30) {
        // Letters first: texts have more of them.
        let mut any = || {
            let n = tokens.len();
            let at = if random.below(2) == 0 { 97 + random.below(26) } else { random.below(n) };
            tokens[at].clone()
        };
        let (left, right) = (any(), any());
        let whole = [&*left, &right].concat();
        if whole.len() < 40 && !tokens.contains(&whole) {
            builder.merge(&left, &right);
            tokens.push(whole);
        }
    }
    for (id, token) in tokens.iter().enumerate() {
        builder.token(token, id as u32);
    }
    let flags = [
        AddedFlags::SPECIAL,
        AddedFlags::SINGLE_WORD,
        AddedFlags::LSTRIP,
        AddedFlags::RSTRIP,
        AddedFlags::NORMALIZED,
    ];
    for (i, content) in ["<|endoftext|>", "<|end", " it", "ß日"].iter().enumerate() {
        if random.below(2) == 0 {
            let chosen = flags.iter().filter(|_| random.below(3) == 0);
            let flags = chosen.fold(AddedFlags::default(), |all, &flag| all.with(flag));
            builder.added_token(content, (tokens.len() + i) as u32, flags);
        }
    }
    builder.build().expect("a valid tokenizer")
}

/// One mutation of a file: its new length. `fuzz` is libFuzzer's own mutation.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    fuzz: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Numbers::new(seed.into());
    let size = match random.below(8) {
        0 => fuzz(data, size, max_size),
        1..=3 => edit_prefix(data, size, &mut random),
        4 => edit_data(data, size, &mut random),
        5 => cut(data, size, &mut random),
        _ => {
            let fill = match random.below(4) {
                0 | 1 => Fill::Sound,
                2 => Fill::Any,
                _ => Fill::Byte(random.pick(&[0x00, 0x7f, 0x80, 0xff])),
            };
            let file = random_file(&mut random, fill);
            if file.len() > max_size {
                return fuzz(data, size, max_size);
            }
            data[..file.len()].copy_from_slice(&file);
            file.len()
        }
    };
    // What the checksums catch is cheap to find, so it is not looked for often.
    if random.below(16) != 0 {
        seal(&mut data[..size]);
    }
    size
}

/// Some words of header, config, directory, or of the beginning of the tokenizer.
fn edit_prefix(data: &mut [u8], size: usize, random: &mut Numbers) -> usize {
    if size < DIRECTORY + 64 {
        return size;
    }
    let directory_end = u64_at(data, 32).saturating_add(u64_at(data, 40)).clamp(DIRECTORY, size);
    for _ in 0..=random.below(3) {
        let at = match random.below(5) {
            0 => 4 * random.below(31),
            1 | 2 => CONFIG + 4 * random.below(16),
            3 => DIRECTORY + 4 * random.below(((directory_end - DIRECTORY) / 4).max(1)),
            _ => u64_at(data, 48).min(size - 4) + 4 * random.below(400),
        };
        if at + 4 <= size {
            data[at..at + 4].copy_from_slice(&random.word().to_le_bytes());
        }
    }
    size
}

/// Some words of the tensors.
fn edit_data(data: &mut [u8], size: usize, random: &mut Numbers) -> usize {
    let start = if size < CONFIG { 0 } else { u64_at(data, 80).min(size) };
    if size - start >= 4 {
        for _ in 0..=random.below(8) {
            let at = start + 4 * random.below((size - start) / 4);
            data[at..at + 4].copy_from_slice(&random.word().to_le_bytes());
        }
    }
    size
}

/// A shorter file whose header says so.
fn cut(data: &mut [u8], size: usize, random: &mut Numbers) -> usize {
    if size <= CONFIG {
        return size;
    }
    let size = if random.below(2) == 0 { size & !63 } else { CONFIG + random.below(size - CONFIG) };
    put_u64(data, 8, size);
    let start = u64_at(data, 80);
    put_u64(data, 88, size.saturating_sub(start));
    size
}
