//! How much of a checkpoint that nobody has checked is read, and how much of it is told.
//!
//! JSON takes many times its length once it is parsed into values of any kind (`0,` becomes 32
//! bytes), so what may be long is parsed into what it must be, entry by entry up to a number of
//! entries, and what may be anything is short.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;

use pocketgpt_runtime::tokenizer::{MAX_MERGES, MAX_TOKENS};
use safetensors::tensor::TensorInfo;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Longest header of a safetensors file, in bytes: GPT-2 XL has 70 KB, 512 layers have 1 MB.
pub const MAX_HEADER: u64 = 8 << 20;
/// Longest `config.json` and `generation_config.json`.
pub const MAX_CONFIG: u64 = 1 << 20;
/// Longest index of shards, and longest files beside a tokenizer.
pub const MAX_INDEX: u64 = 8 << 20;
/// Longest `tokenizer.json`, `vocab.json` and `merges.txt`: two million entries have less.
pub const MAX_TOKENIZER: u64 = 256 << 20;
/// Longest text to calibrate or compare with: far more than is used, and not all of the memory.
pub const MAX_TEXT: u64 = 64 << 20;
/// Most files that the weights may be in.
pub const MAX_SHARDS: usize = 1024;
/// Longest part of a `tokenizer.json` besides vocabulary and merges.
const MAX_PART: usize = 1 << 20;
/// Most tensors of a checkpoint: 512 layers with all buffers of old versions have 7000.
pub const MAX_TENSORS: usize = 1 << 14;
/// Longest name of a tensor, and of the file it is in, in bytes.
pub const MAX_NAME: usize = 256;
/// Most dimensions of a tensor; GPT-2's masks have four.
pub const MAX_DIMENSIONS: usize = 8;

/// A foreign text for a message: its beginning, if it is long.
pub fn told(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.into(),
    }
}

/// What is wrong, in another crate's words, which may repeat what it was given: beginning and end.
pub fn cause(text: &str) -> String {
    let cut = |chars: usize| text.char_indices().nth(chars).map(|(at, _)| at);
    let (Some(_), Some(begin), Some((end, _))) =
        (cut(300), cut(150), text.char_indices().rev().nth(100))
    else {
        return text.into();
    };
    format!("{} … {}", &text[..begin], &text[end..])
}

/// What a safetensors header must not have besides what its own rules say; `before` is the number of
/// tensors of the files before.
///
/// # Errors
/// What it has, in words.
pub fn check_tensors(before: usize, tensors: &HashMap<String, &TensorInfo>) -> Result<(), String> {
    let count = before + tensors.len();
    if count > MAX_TENSORS {
        return Err(format!("there are {count} tensors, at most {MAX_TENSORS} are read"));
    }
    for (name, info) in tensors {
        if name.len() > MAX_NAME {
            let name = told(name);
            return Err(format!(
                "the tensor name {name} is too long, at most {MAX_NAME} bytes are read"
            ));
        }
        let n = info.shape.len();
        if n > MAX_DIMENSIONS {
            return Err(format!(
                "tensor {name} has {n} dimensions, at most {MAX_DIMENSIONS} are read"
            ));
        }
    }
    Ok(())
}

/// An object of JSON in which no name stands twice; nothing of it is kept.
pub struct DistinctNames;

impl<'de> Deserialize<'de> for DistinctNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = DistinctNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut names = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if let Some(name) = names.replace(name) {
                        let name = told(&name);
                        return Err(A::Error::custom(format!("tensor {name} is there twice")));
                    }
                }
                Ok(DistinctNames)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// JSON of any kind that must not be long.
pub struct Part(pub Value);

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw.len() > MAX_PART {
            let len = raw.len();
            return Err(D::Error::custom(format!(
                "a part has {len} bytes, at most {MAX_PART} are read"
            )));
        }
        serde_json::from_str(raw).map(Self).map_err(D::Error::custom)
    }
}

/// Tokens and their ids, no more than a file can have.
pub fn vocabulary<'de, D>(deserializer: D) -> Result<BTreeMap<String, u32>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Vocabulary;
    impl<'de> Visitor<'de> for Vocabulary {
        type Value = BTreeMap<String, u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("tokens with their ids")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut vocabulary = BTreeMap::new();
            while let Some((token, id)) = map.next_entry()? {
                if vocabulary.len() == MAX_TOKENS as usize {
                    return Err(A::Error::custom(format!("more than {MAX_TOKENS} tokens")));
                }
                vocabulary.insert(token, id);
            }
            Ok(vocabulary)
        }
    }
    deserializer.deserialize_map(Vocabulary)
}

/// A list of merges or of added tokens, no longer than a file can have.
pub fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = seq.next_element()? {
                if list.len() == MAX_MERGES as usize {
                    return Err(A::Error::custom(format!("a list of more than {MAX_MERGES}")));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List(PhantomData))
}

/// `vocab.json`: nothing but a vocabulary.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub struct Vocabulary(#[serde(deserialize_with = "vocabulary")] pub BTreeMap<String, u32>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_more_tokens_than_a_file_can_have() {
        let many = |n: u32| {
            let tokens: Vec<_> = (0..n).map(|id| format!("\"{id:x}\":{id}")).collect();
            serde_json::from_str::<Vocabulary>(&format!("{{{}}}", tokens.join(",")))
        };
        assert_eq!(many(3).unwrap().0.len(), 3);
        let error = many(MAX_TOKENS + 1).err().unwrap().to_string();
        assert!(error.contains("more than 2097152 tokens"), "{error}");
    }

    #[test]
    fn rejects_longer_lists_than_a_file_can_have() {
        #[derive(serde::Deserialize)]
        #[serde(transparent)]
        struct Numbers(#[serde(deserialize_with = "list")] Vec<u8>);
        let many = |n: u32| {
            let zeros = "0,".repeat(n as usize - 1);
            serde_json::from_str::<Numbers>(&format!("[{zeros}0]")).map(|list| list.0.len())
        };
        assert_eq!(many(MAX_MERGES).unwrap(), MAX_MERGES as usize);
        let error = many(MAX_MERGES + 1).unwrap_err().to_string();
        assert!(error.contains("a list of more than 2097152"), "{error}");
    }

    #[test]
    fn rejects_long_parts() {
        let part = |n: usize| serde_json::from_str::<Part>(&format!("[{}0]", "0,".repeat(n)));
        assert!(part(10).is_ok());
        let error = part(MAX_PART).err().unwrap().to_string();
        assert!(error.contains("a part has"), "{error}");
    }

    #[test]
    fn messages_repeat_the_beginning_of_a_long_text() {
        assert_eq!(told("short"), "short");
        let long = told(&"ß".repeat(1000));
        assert!(long.len() < 200 && long.ends_with("… (2000 bytes)"), "{long}");
        assert_eq!(cause("a cause"), "a cause");
        let long = cause(&format!("token {} is wrong", "日".repeat(1000)));
        assert!(long.starts_with("token 日") && long.ends_with("日 is wrong"), "{long}");
        assert!(long.chars().count() < 300, "{long}");
    }
}
