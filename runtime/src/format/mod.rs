//! The `.pgpt` file, version 1: one definition for reader and writer.
//!
//! All numbers are little-endian. In this order, each part at the next multiple of 64 bytes (the
//! tensor data at the next multiple of 4096), the gaps filled with zeros:
//!
//! | part | content |
//! |---|---|
//! | [`Header`] | magic, version, file length, section table, CRCs |
//! | config | [`Gpt2Config`](crate::config::Gpt2Config) in 64 bytes |
//! | directory | one [`TensorEntry`] of 64 bytes per tensor, in the order of [`tensor::canonical`] |
//! | tokenizer | [`crate::tokenizer`]'s tables, or empty |
//! | metadata | JSON text: source, recipe, quality; ignored by the runtime |
//! | data | the tensors, each at the next multiple of 64 bytes |
//!
//! `docs/format.md` describes every byte for someone who writes a second reader.

#[cfg(feature = "alloc")]
pub mod encode;
pub mod header;
#[cfg(feature = "mmap")]
mod mmap;
pub mod reader;
pub mod tensor;

pub use header::Header;
#[cfg(feature = "mmap")]
pub use mmap::MappedFile;
#[cfg(feature = "mmap")]
pub(crate) use mmap::{addressable_len, open_regular};
pub use reader::{TensorView, WeightFile};
pub use tensor::{Encoding, Packing, Role, TensorEntry};

#[cfg(target_endian = "big")]
compile_error!("weights are used in place, and a file is little-endian");

/// First four bytes of every file.
pub const MAGIC: [u8; 4] = *b"PGPT";
/// The version this crate reads and writes.
pub const VERSION: u32 = 1;
/// Alignment of every section and tensor: one cache line, one AVX-512 register.
pub const ALIGN: usize = 64;
/// Alignment of the tensor data: one page.
pub const DATA_ALIGN: usize = 4096;

/// `value` rounded up to a multiple of `align`, a power of two; `None` on overflow.
pub(crate) fn align_up(value: u64, align: usize) -> Option<u64> {
    let mask = align as u64 - 1;
    Some(value.checked_add(mask)? & !mask)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
