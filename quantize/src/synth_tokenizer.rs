//! A byte-level tokenizer of any size, made up: 256 bytes, merges of lower-case letters, and
//! `<|endoftext|>` last, as GPT-2 has it.

use pocketgpt_runtime::tokenizer::alphabet::byte_to_char;
use serde_json::{Map, Value, json};

/// `tokenizer.json` with exactly `vocab_size` entries, at least 257 of them.
///
/// Merges are, in this order: a space or letter with a letter, then each pair with a letter,
/// then each of those with a letter, until there are enough.
pub fn tokenizer_json(vocab_size: u32) -> Value {
    let end = vocab_size - 1;
    let wanted = (end as usize).checked_sub(256).expect("room for every byte");
    let merges = merges(wanted);
    // GPT-2's order of the bytes: those that are written as themselves come first.
    let printable = |byte: &u8| byte_to_char(*byte) as u32 == u32::from(*byte);
    let (first, then): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let bytes = first.into_iter().chain(then).map(|byte| byte_to_char(byte).to_string());
    let tokens = bytes.chain(merges.iter().map(|(left, right)| format!("{left}{right}")));
    let mut vocab: Map<String, Value> =
        tokens.zip(0u32..).map(|(token, id)| (token, id.into())).collect();
    vocab.insert("<|endoftext|>".into(), end.into());
    let byte_level = json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": true,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": end,
            "content": "<|endoftext|>",
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocab,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    })
}

fn merges(wanted: usize) -> Vec<(String, char)> {
    let space = byte_to_char(b' ').to_string();
    let mut tokens: Vec<String> = [space].into_iter().chain(letters().map(String::from)).collect();
    let mut merges = Vec::with_capacity(wanted);
    while merges.len() < wanted {
        let mut longer = Vec::new();
        for left in &tokens {
            for right in letters().take(wanted - merges.len()) {
                longer.push(format!("{left}{right}"));
                merges.push((left.clone(), right));
            }
        }
        tokens = longer;
    }
    merges
}

fn letters() -> impl Iterator<Item = char> {
    // The most frequent ones of English first: small vocabularies get the useful pairs.
    "etaoinshrdlcumwfgypbvkjxqz".chars()
}
