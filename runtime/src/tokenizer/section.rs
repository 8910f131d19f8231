//! The bytes of a tokenizer section: its layout, and the view that reads it in place.

use super::TokenizerError;
use super::added::AddedFlags;

/// Version of the layout.
pub(super) const VERSION: u16 = 1;
/// Kind of tokenizer: byte-level BPE with GPT-2's pre-tokenizer.
pub(super) const KIND_BYTE_LEVEL_BPE: u16 = 1;
/// Length of the header.
pub(super) const HEADER_LEN: usize = 64;
/// Header flag: a space is put before a text that does not start with one.
pub(super) const FLAG_ADD_PREFIX_SPACE: u32 = 1;

/// Bits of an id or a rank inside a merge.
const FIELD_BITS: u32 = 21;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;

/// Most ids of a section.
pub const MAX_TOKENS: u32 = 1 << FIELD_BITS;
/// Most merges of a section.
pub const MAX_MERGES: u32 = 1 << FIELD_BITS;
/// Longest content of an added token in bytes: it bounds the work of looking for one.
pub const MAX_ADDED_LEN: usize = 1024;

/// One merge of a left id: with `right` after it, it becomes `merged`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Merge {
    pub right: u32,
    pub rank: u32,
    pub merged: u32,
}

impl Merge {
    #[cfg(feature = "alloc")]
    pub const fn to_bits(self) -> u64 {
        (self.right as u64) << (2 * FIELD_BITS)
            | (self.rank as u64) << FIELD_BITS
            | self.merged as u64
    }

    pub const fn from_bits(bits: u64) -> Self {
        Self {
            right: (bits >> (2 * FIELD_BITS)) as u32,
            rank: (bits >> FIELD_BITS & FIELD_MASK) as u32,
            merged: (bits & FIELD_MASK) as u32,
        }
    }
}

/// A tokenizer section, used in place.
///
/// The view is a few slices into the section: copying it is cheap, opening it reads the header and
/// nothing else. Bytes that [`verify`](Self::verify) would refuse make it give wrong text or ids,
/// never a panic, an endless loop or an id outside `0..vocab_size()`.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerView<'a> {
    flags: u32,
    /// `[256]` ids.
    byte_ids: &'a [[u8; 4]],
    /// `[n_tokens + 1]` offsets into `blob`.
    token_offsets: &'a [[u8; 4]],
    /// `[n_tokens + 1]` offsets into `merges`.
    merge_index: &'a [[u8; 4]],
    /// `[n_merges]`, grouped by left id.
    merges: &'a [[u8; 8]],
    /// `[n_added]` pairs of id and flags.
    added: &'a [[u8; 8]],
    blob: &'a [u8],
}

fn read_u16(bytes: &[u8; HEADER_LEN], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn read_u32(bytes: &[u8; HEADER_LEN], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Takes `count` elements of `N` bytes off the front of `rest`.
fn take<'a, const N: usize>(rest: &mut &'a [u8], count: usize) -> Option<&'a [[u8; N]]> {
    let (table, tail) = rest.split_at_checked(count.checked_mul(N)?)?;
    *rest = tail;
    Some(table.as_chunks().0)
}

impl<'a> TokenizerView<'a> {
    /// Opens a section. Constant work: the header is read, and all tables are proven to fill the
    /// section without gap, overlap or tail.
    ///
    /// # Errors
    ///
    /// The rule of the header that is broken. What is inside the tables is the business of
    /// [`verify`](Self::verify).
    pub fn new(section: &'a [u8]) -> Result<Self, TokenizerError> {
        let Some((header, mut rest)) = section.split_first_chunk::<HEADER_LEN>() else {
            return Err(TokenizerError::Truncated { len: section.len() });
        };
        let version = read_u16(header, 0);
        if version != VERSION {
            return Err(TokenizerError::Version(version));
        }
        let kind = read_u16(header, 2);
        if kind != KIND_BYTE_LEVEL_BPE {
            return Err(TokenizerError::Kind(kind));
        }
        let flags = read_u32(header, 4);
        if flags & !FLAG_ADD_PREFIX_SPACE != 0 {
            return Err(TokenizerError::Flags(flags));
        }
        if header[24..].iter().any(|&byte| byte != 0) {
            return Err(TokenizerError::Reserved);
        }
        let n_tokens = read_u32(header, 8);
        if n_tokens == 0 || n_tokens > MAX_TOKENS {
            return Err(TokenizerError::TokenCount(n_tokens));
        }
        let n_merges = read_u32(header, 12);
        if n_merges > MAX_MERGES {
            return Err(TokenizerError::MergeCount(n_merges));
        }
        let n_added = read_u32(header, 16);
        if n_added > n_tokens {
            return Err(TokenizerError::AddedCount(n_added));
        }
        let blob_len = read_u32(header, 20);

        // Every count is below 2^22, so this cannot overflow.
        let expected = HEADER_LEN as u64
            + 256 * 4
            + (u64::from(n_tokens) + 1) * 8
            + u64::from(n_merges) * 8
            + u64::from(n_added) * 8
            + u64::from(blob_len);
        let wrong_length = TokenizerError::Length { expected, found: section.len() };
        if section.len() as u64 != expected {
            return Err(wrong_length);
        }
        let mut tables = || {
            Some(Self {
                flags,
                byte_ids: take(&mut rest, 256)?,
                token_offsets: take(&mut rest, n_tokens as usize + 1)?,
                merge_index: take(&mut rest, n_tokens as usize + 1)?,
                merges: take(&mut rest, n_merges as usize)?,
                added: take(&mut rest, n_added as usize)?,
                blob: rest,
            })
        };
        tables().ok_or(wrong_length)
    }

    /// Number of ids; every id is below it. The vocabulary of a model may be larger (padded).
    pub fn vocab_size(&self) -> u32 {
        // `new` made the table one longer than a number of at most MAX_TOKENS.
        self.token_offsets.len() as u32 - 1
    }

    /// Number of merges.
    pub fn merge_count(&self) -> u32 {
        self.merges.len() as u32
    }

    /// Whether a space is put before a text that does not start with one.
    pub fn add_prefix_space(&self) -> bool {
        self.flags & FLAG_ADD_PREFIX_SPACE != 0
    }

    /// The bytes that token `id` stands for: decoding is their concatenation. Added tokens give
    /// their content, ids that the vocabulary leaves out give no bytes.
    ///
    /// `None` if `id` is not below [`vocab_size`](Self::vocab_size).
    pub fn token_bytes(&self, id: u32) -> Option<&'a [u8]> {
        let (start, end) = range_at(self.token_offsets, id)?;
        self.blob.get(start..end)
    }

    /// The id of the token with this single byte.
    pub fn byte_id(&self, byte: u8) -> u32 {
        let id = u32::from_le_bytes(self.byte_ids[usize::from(byte)]);
        id.min(self.vocab_size() - 1)
    }

    /// Rank and id of what `left` and `right` are merged into.
    #[inline]
    pub(super) fn merge(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let (start, end) = range_at(self.merge_index, left)?;
        let merges = self.merges.get(start..end)?;
        let right_of = |merge: &[u8; 8]| Merge::from_bits(u64::from_le_bytes(*merge)).right;
        let at = merges.partition_point(|merge| right_of(merge) < right);
        let merge = Merge::from_bits(u64::from_le_bytes(*merges.get(at)?));
        (merge.right == right && merge.merged < self.vocab_size())
            .then_some((merge.rank, merge.merged))
    }

    /// Number of added tokens.
    pub(super) fn added_count(&self) -> usize {
        self.added.len()
    }

    /// Id and flags of an added token, in order of their contents.
    pub(super) fn added(&self, index: usize) -> Option<(u32, AddedFlags)> {
        let [id, flags] = *self.added.get(index)?.as_chunks::<4>().0 else {
            return None;
        };
        let flags = AddedFlags::from_bits(u32::from_le_bytes(flags));
        Some((u32::from_le_bytes(id), flags))
    }

    /// Checks everything that [`new`](Self::new) leaves out, reading the whole section: after it,
    /// decoding gives back the bytes of every text that was encoded.
    ///
    /// # Errors
    ///
    /// The first rule that is broken.
    pub fn verify(&self) -> Result<(), TokenizerError> {
        check_offsets(self.token_offsets, self.blob.len())
            .map_err(|id| TokenizerError::TokenOffset(id as u32))?;
        for byte in 0..=255 {
            // Not `byte_id`, which hides an id out of range.
            let id = u32::from_le_bytes(self.byte_ids[usize::from(byte)]);
            if self.token_bytes(id) != Some(&[byte]) {
                return Err(TokenizerError::ByteId(byte));
            }
        }
        check_offsets(self.merge_index, self.merges.len())
            .map_err(|id| TokenizerError::MergeIndex(id as u32))?;
        for left in 0..self.vocab_size() {
            self.verify_merges(left)?;
        }
        let mut before: Option<&[u8]> = None;
        for at in 0..self.added_count() {
            let index = at as u32;
            let (id, flags) = self.added(at).unwrap_or_default();
            let Some(content) = self.token_bytes(id) else {
                return Err(TokenizerError::AddedId(index));
            };
            if !flags.is_known() {
                return Err(TokenizerError::AddedFlags(index));
            }
            if !is_added_content(content) {
                return Err(TokenizerError::AddedContent(index));
            }
            if before.is_some_and(|before| before >= content) {
                return Err(TokenizerError::AddedOrder(index));
            }
            before = Some(content);
        }
        Ok(())
    }

    fn verify_merges(&self, left: u32) -> Result<(), TokenizerError> {
        let (start, end) = range_at(self.merge_index, left).unwrap_or_default();
        let left = self.token_bytes(left).unwrap_or_default();
        let mut before = None;
        for (index, merge) in (start..end).zip(self.merges.get(start..end).unwrap_or_default()) {
            let index = index as u32;
            let bits = u64::from_le_bytes(*merge);
            let merge = Merge::from_bits(bits);
            let (Some(right), Some(merged)) =
                (self.token_bytes(merge.right), self.token_bytes(merge.merged))
            else {
                return Err(TokenizerError::MergeRange(index));
            };
            if bits >> 63 != 0 || merge.rank >= self.merge_count() {
                return Err(TokenizerError::MergeRange(index));
            }
            if before.is_some_and(|before| before >= merge.right) {
                return Err(TokenizerError::MergeOrder(index));
            }
            before = Some(merge.right);
            if merged.strip_prefix(left) != Some(right) {
                return Err(TokenizerError::MergeBytes(index));
            }
        }
        Ok(())
    }
}

/// Whether an added token may have this content.
fn is_added_content(content: &[u8]) -> bool {
    (1..=MAX_ADDED_LEN).contains(&content.len()) && core::str::from_utf8(content).is_ok()
}

/// Elements `index` and `index + 1` of a table of offsets.
#[inline]
fn range_at(offsets: &[[u8; 4]], index: u32) -> Option<(usize, usize)> {
    let index = index as usize;
    let [start, end] = *offsets.get(index..)?.first_chunk::<2>()?;
    Some((u32::from_le_bytes(start) as usize, u32::from_le_bytes(end) as usize))
}

/// Offsets must rise from 0 to `end`; the error is the index of the first range that does not.
fn check_offsets(offsets: &[[u8; 4]], end: usize) -> Result<(), usize> {
    let mut before = 0;
    for (index, offset) in offsets.iter().enumerate() {
        let offset = u32::from_le_bytes(*offset) as usize;
        if (index == 0 && offset != 0) || offset < before || offset > end {
            return Err(index.saturating_sub(1));
        }
        before = offset;
    }
    if before == end { Ok(()) } else { Err(offsets.len().saturating_sub(2)) }
}
