//! The writer of tokenizer sections.

use super::added::AddedFlags;
use super::alphabet::char_to_byte;
use super::section::{
    FLAG_ADD_PREFIX_SPACE, HEADER_LEN, KIND_BYTE_LEVEL_BPE, MAX_ADDED_LEN, MAX_MERGES, MAX_TOKENS,
    Merge, VERSION,
};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Makes the bytes of a tokenizer section from the parts of `tokenizer.json`, or of `vocab.json`
/// and `merges.txt`.
///
/// The order in which tokens and added tokens are given does not matter; that of merges is their
/// rank. The same input gives the same bytes.
///
/// ```
/// use pocketgpt_runtime::tokenizer::{AddedFlags, TokenizerBuilder, TokenizerView, alphabet};
///
/// let mut builder = TokenizerBuilder::new();
/// for byte in 0..=255 {
///     builder.token(&alphabet::byte_to_char(byte).to_string(), byte.into());
/// }
/// builder.token("Ġa", 256);
/// builder.merge("Ġ", "a");
/// builder.added_token("<|endoftext|>", 257, AddedFlags::SPECIAL);
/// let section = builder.build()?;
///
/// let view = TokenizerView::new(&section)?;
/// view.verify()?;
/// assert_eq!(view.encode_to_vec("b a<|endoftext|>"), [98, 256, 257]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TokenizerBuilder {
    add_prefix_space: bool,
    tokens: Vec<(String, u32)>,
    merges: Vec<(String, String)>,
    added: Vec<(String, u32, AddedFlags)>,
}

/// Why no section can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// An id is not below [`MAX_TOKENS`].
    IdTooLarge(u32),
    /// Two tokens have the same id.
    DuplicateId(u32),
    /// A token is given twice.
    DuplicateToken(String),
    /// A token has a character outside GPT-2's byte alphabet, and is not an added token.
    NotInAlphabet {
        /// The token.
        token: String,
        /// The character.
        character: char,
    },
    /// No token stands for this single byte, so not every text could be encoded.
    MissingByte(u8),
    /// There are more than [`MAX_MERGES`] merges.
    TooManyMerges(usize),
    /// A part of a merge, or what it makes, is not in the vocabulary.
    MergeNotInVocabulary {
        /// Rank of the merge.
        rank: usize,
        /// The token that is missing.
        token: String,
    },
    /// A merge is given twice.
    DuplicateMerge {
        /// Rank of the second one.
        rank: usize,
    },
    /// An added token is empty or longer than [`MAX_ADDED_LEN`] bytes.
    AddedLength(String),
    /// An added token is in the vocabulary with another id.
    AddedId {
        /// The added token.
        content: String,
        /// Its id as an added token.
        added: u32,
        /// Its id in the vocabulary.
        vocabulary: u32,
    },
    /// An added token is also a token of the vocabulary, where its characters stand for other
    /// bytes than its content has.
    AddedAmbiguous(String),
    /// All tokens together have 4 GiB or more.
    TooLong,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdTooLarge(id) => write!(f, "token id {id} is not below {MAX_TOKENS}"),
            Self::DuplicateId(id) => write!(f, "token id {id} is given to two tokens"),
            Self::DuplicateToken(token) => write!(f, "token {token:?} is given twice"),
            Self::NotInAlphabet { token, character } => write!(
                f,
                "token {token:?} has {character:?}, which is not in the byte-level alphabet"
            ),
            Self::MissingByte(byte) => {
                write!(f, "the vocabulary has no token for the byte {byte:#04x}")
            }
            Self::TooManyMerges(count) => write!(f, "{count} merges are more than {MAX_MERGES}"),
            Self::MergeNotInVocabulary { rank, token } => {
                write!(f, "merge {rank} needs the token {token:?}, which is not in the vocabulary")
            }
            Self::DuplicateMerge { rank } => write!(f, "merge {rank} is given a second time"),
            Self::AddedLength(content) => {
                write!(f, "added token {content:?} is empty or longer than {MAX_ADDED_LEN} bytes")
            }
            Self::AddedId { content, added, vocabulary } => write!(
                f,
                "added token {content:?} has the id {added}, but {vocabulary} in the vocabulary"
            ),
            Self::AddedAmbiguous(content) => write!(
                f,
                "added token {content:?} stands for other bytes in the vocabulary than as text"
            ),
            Self::TooLong => f.write_str("the tokens have 4 GiB or more"),
        }
    }
}

impl core::error::Error for BuildError {}

impl TokenizerBuilder {
    /// An empty vocabulary, no space put before texts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a space is put before a text that does not start with one (`false` for GPT-2).
    pub fn add_prefix_space(&mut self, yes: bool) -> &mut Self {
        self.add_prefix_space = yes;
        self
    }

    /// Adds a token of the vocabulary, written in GPT-2's byte alphabet.
    pub fn token(&mut self, token: &str, id: u32) -> &mut Self {
        self.tokens.push((token.to_owned(), id));
        self
    }

    /// Adds the next merge, its parts written in GPT-2's byte alphabet.
    pub fn merge(&mut self, left: &str, right: &str) -> &mut Self {
        self.merges.push((left.to_owned(), right.to_owned()));
        self
    }

    /// Adds a token that is found in a text before it is split into words. It may be in the
    /// vocabulary too, with the same id. Its content is plain text.
    pub fn added_token(&mut self, content: &str, id: u32, flags: AddedFlags) -> &mut Self {
        self.added.push((content.to_owned(), id, flags));
        self
    }

    /// Makes the section. Ids that no token has (padding) stand for no bytes.
    ///
    /// # Errors
    ///
    /// [`BuildError`], naming the token, merge or byte.
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        let vocabulary = self.vocabulary()?;
        let added = self.added_by_content(&vocabulary)?;
        let bytes = self.bytes_by_id(&added)?;
        let byte_ids = byte_ids(&vocabulary)?;
        let merges = self.sorted_merges(&vocabulary)?;
        // Both counts are capped where the ids and merges are checked.
        let n_tokens = bytes.len() as u32;
        let n_merges = merges.len() as u32;

        let mut blob = Vec::new();
        let mut token_offsets = vec![0u32];
        for token in &bytes {
            blob.extend_from_slice(token);
            token_offsets.push(u32::try_from(blob.len()).map_err(|_| BuildError::TooLong)?);
        }
        let mut merge_index = vec![0u32; bytes.len() + 1];
        for &left in merges.keys().map(|(left, _)| left) {
            merge_index[left as usize + 1] += 1;
        }
        for id in 0..bytes.len() {
            merge_index[id + 1] += merge_index[id];
        }

        let mut header = Vec::with_capacity(HEADER_LEN);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&KIND_BYTE_LEVEL_BPE.to_le_bytes());
        let flags = if self.add_prefix_space { FLAG_ADD_PREFIX_SPACE } else { 0 };
        let counts = [flags, n_tokens, n_merges, added.len() as u32, blob.len() as u32];
        header.extend(counts.iter().flat_map(|value| value.to_le_bytes()));
        header.resize(HEADER_LEN, 0);

        let mut section = header;
        for table in [&byte_ids[..], &token_offsets, &merge_index] {
            section.extend(table.iter().flat_map(|value| value.to_le_bytes()));
        }
        for merge in merges.values() {
            section.extend_from_slice(&merge.to_bits().to_le_bytes());
        }
        for (id, flags) in added.values() {
            section.extend_from_slice(&id.to_le_bytes());
            section.extend_from_slice(&flags.to_bits().to_le_bytes());
        }
        section.extend_from_slice(&blob);
        Ok(section)
    }

    fn vocabulary(&self) -> Result<BTreeMap<&str, u32>, BuildError> {
        let mut vocabulary = BTreeMap::new();
        for (token, id) in &self.tokens {
            if vocabulary.insert(token.as_str(), *id).is_some() {
                return Err(BuildError::DuplicateToken(token.clone()));
            }
        }
        Ok(vocabulary)
    }

    fn added_by_content(
        &self,
        vocabulary: &BTreeMap<&str, u32>,
    ) -> Result<BTreeMap<&str, (u32, AddedFlags)>, BuildError> {
        // Ordered by bytes, as `str` is, which is the order that the section wants.
        let mut added = BTreeMap::new();
        for (content, id, flags) in &self.added {
            if !(1..=MAX_ADDED_LEN).contains(&content.len()) {
                return Err(BuildError::AddedLength(content.clone()));
            }
            if let Some(&vocabulary) = vocabulary.get(content.as_str()) {
                if vocabulary != *id {
                    return Err(BuildError::AddedId {
                        content: content.clone(),
                        added: *id,
                        vocabulary,
                    });
                }
                if token_bytes(content).is_ok_and(|bytes| bytes != content.as_bytes()) {
                    return Err(BuildError::AddedAmbiguous(content.clone()));
                }
            }
            if added.insert(content.as_str(), (*id, *flags)).is_some() {
                return Err(BuildError::DuplicateToken(content.clone()));
            }
        }
        Ok(added)
    }

    /// `[n_tokens]` bytes of each id, none where there is no token.
    fn bytes_by_id(
        &self,
        added: &BTreeMap<&str, (u32, AddedFlags)>,
    ) -> Result<Vec<Vec<u8>>, BuildError> {
        let mut by_id = BTreeMap::new();
        for (content, (id, _)) in added {
            if by_id.insert(*id, content.as_bytes().to_vec()).is_some() {
                return Err(BuildError::DuplicateId(*id));
            }
        }
        for (token, id) in &self.tokens {
            if added.contains_key(token.as_str()) {
                continue;
            }
            if by_id.insert(*id, token_bytes(token)?).is_some() {
                return Err(BuildError::DuplicateId(*id));
            }
        }
        let Some((&last, _)) = by_id.last_key_value() else {
            return Err(BuildError::MissingByte(0));
        };
        if last >= MAX_TOKENS {
            return Err(BuildError::IdTooLarge(last));
        }
        Ok((0..=last).map(|id| by_id.remove(&id).unwrap_or_default()).collect())
    }

    /// Merges by left id, then right id.
    fn sorted_merges(
        &self,
        vocabulary: &BTreeMap<&str, u32>,
    ) -> Result<BTreeMap<(u32, u32), Merge>, BuildError> {
        if self.merges.len() > MAX_MERGES as usize {
            return Err(BuildError::TooManyMerges(self.merges.len()));
        }
        let mut merges = BTreeMap::new();
        let mut whole = String::new();
        for (rank, (left, right)) in self.merges.iter().enumerate() {
            let id = |token: &str| {
                let missing = || BuildError::MergeNotInVocabulary { rank, token: token.to_owned() };
                vocabulary.get(token).copied().ok_or_else(missing)
            };
            whole.clear();
            whole.push_str(left);
            whole.push_str(right);
            let (left, right) = (id(left)?, id(right)?);
            let merge = Merge { right, rank: rank as u32, merged: id(&whole)? };
            if merges.insert((left, right), merge).is_some() {
                return Err(BuildError::DuplicateMerge { rank });
            }
        }
        Ok(merges)
    }
}

fn byte_ids(vocabulary: &BTreeMap<&str, u32>) -> Result<Vec<u32>, BuildError> {
    let mut buffer = [0; 4];
    (0..=255)
        .map(|byte| {
            let token: &str = super::alphabet::byte_to_char(byte).encode_utf8(&mut buffer);
            let id = vocabulary.get(token).copied();
            id.ok_or(BuildError::MissingByte(byte))
        })
        .collect()
}

/// The bytes that a token of the vocabulary stands for.
fn token_bytes(token: &str) -> Result<Vec<u8>, BuildError> {
    token
        .chars()
        .map(|character| {
            char_to_byte(character)
                .ok_or_else(|| BuildError::NotInAlphabet { token: token.to_owned(), character })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::small_builder as small;
    use super::super::{TokenizerView, alphabet};
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn same_input_same_bytes_in_any_order() {
        let mut reversed = small();
        reversed.tokens.reverse();
        reversed.added.reverse();
        assert_eq!(small().build(), reversed.build());
    }

    #[test]
    fn holes_stand_for_no_bytes() {
        let section = small().token("zz", 300).build().unwrap();
        let view = TokenizerView::new(&section).unwrap();
        view.verify().unwrap();
        assert_eq!(view.vocab_size(), 301);
        assert_eq!(view.token_bytes(299), Some(&b""[..]));
        assert_eq!(view.token_bytes(300), Some(&b"zz"[..]));
        assert_eq!(view.token_bytes(301), None);
    }

    #[test]
    fn added_content_may_be_outside_the_alphabet() {
        let section = small()
            .token("<日 本>", 290)
            .added_token("<日 本>", 290, AddedFlags::default())
            .build()
            .unwrap();
        let view = TokenizerView::new(&section).unwrap();
        assert_eq!(view.token_bytes(290), Some("<日 本>".as_bytes()));
        assert_eq!(view.encode_to_vec("a<日 本>"), [97, 290]);
    }

    #[test]
    fn rejects_id_too_large() {
        let built = small().token("zz", MAX_TOKENS).build();
        assert_eq!(built, Err(BuildError::IdTooLarge(MAX_TOKENS)));
    }

    #[test]
    fn rejects_duplicate_id() {
        let built = small().token("zz", 7).build();
        assert_eq!(built, Err(BuildError::DuplicateId(7)));
        let built = small().added_token("zz", 7, AddedFlags::SPECIAL).build();
        assert_eq!(built, Err(BuildError::DuplicateId(7)));
    }

    #[test]
    fn rejects_duplicate_token() {
        let built = small().token("a", 300).build();
        assert_eq!(built, Err(BuildError::DuplicateToken("a".into())));
        let built = small().added_token("<|endoftext|>", 300, AddedFlags::default()).build();
        assert_eq!(built, Err(BuildError::DuplicateToken("<|endoftext|>".into())));
    }

    #[test]
    fn rejects_characters_outside_the_alphabet() {
        let built = small().token("a b", 300).build();
        let (token, character) = ("a b".to_string(), ' ');
        assert_eq!(built, Err(BuildError::NotInAlphabet { token, character }));
    }

    #[test]
    fn rejects_missing_byte() {
        let mut builder = TokenizerBuilder::new();
        assert_eq!(builder.build(), Err(BuildError::MissingByte(0)));
        for byte in (0..=255).filter(|&byte| byte != 0xe9) {
            let token = alphabet::byte_to_char(byte).to_string();
            builder.token(&token, byte.into());
        }
        assert_eq!(builder.build(), Err(BuildError::MissingByte(0xe9)));
    }

    #[test]
    fn rejects_too_many_merges() {
        let mut builder = small();
        let count = MAX_MERGES as usize + 1;
        builder.merges = vec![(String::new(), String::new()); count];
        assert_eq!(builder.build(), Err(BuildError::TooManyMerges(count)));
    }

    #[test]
    fn rejects_merges_outside_the_vocabulary() {
        for (left, right, token) in [("qq", "a", "qq"), ("a", "qq", "qq"), ("q", "a", "qa")] {
            let mut builder = small();
            let (rank, token) = (builder.merges.len(), token.to_string());
            let built = builder.merge(left, right).build();
            assert_eq!(built, Err(BuildError::MergeNotInVocabulary { rank, token }));
        }
    }

    #[test]
    fn rejects_duplicate_merge() {
        let mut builder = small();
        let rank = builder.merges.len();
        let (left, right) = builder.merges[0].clone();
        let built = builder.merge(&left, &right).build();
        assert_eq!(built, Err(BuildError::DuplicateMerge { rank }));
    }

    #[test]
    fn rejects_added_length() {
        for content in [String::new(), "x".repeat(MAX_ADDED_LEN + 1)] {
            let built = small().added_token(&content, 300, AddedFlags::default()).build();
            assert_eq!(built, Err(BuildError::AddedLength(content)));
        }
    }

    #[test]
    fn rejects_added_id_that_differs_from_the_vocabulary() {
        let built = small().added_token("a", 300, AddedFlags::default()).build();
        let error = BuildError::AddedId { content: "a".into(), added: 300, vocabulary: 97 };
        assert_eq!(built, Err(error));
    }

    #[test]
    fn rejects_added_token_that_is_other_bytes_in_the_vocabulary() {
        let built = small().added_token("é", 0xe9, AddedFlags::default()).build();
        assert_eq!(built, Err(BuildError::AddedAmbiguous("é".into())));
    }
}
