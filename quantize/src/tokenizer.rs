//! `tokenizer.json`, or `vocab.json` and `merges.txt`, as the tokenizer section of a file.
//!
//! Only GPT-2's byte-level BPE is taken; what differs from it is refused by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pocketgpt_runtime::tokenizer::{AddedFlags, TokenizerBuilder, TokenizerView};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ConvertError;
use crate::limits::{self, MAX_INDEX, MAX_TOKENIZER, Part, Vocabulary, cause, told};
use crate::source::{one_line, parse_json, parse_text, read_text};

/// A tokenizer section, and what it was made from.
#[derive(Clone, Debug)]
pub struct TokenizerSection {
    /// The section's bytes.
    pub bytes: Vec<u8>,
    /// Ids are below this.
    pub vocab_size: u32,
    /// The files read.
    pub files: Vec<PathBuf>,
}

/// Reads the tokenizer of a checkpoint's folder: `tokenizer.json` if there is one, otherwise
/// `vocab.json` and `merges.txt`.
///
/// # Errors
/// If there is none, if it is another kind, or if its tables do not fit each other.
pub fn read(folder: &Path) -> Result<TokenizerSection, ConvertError> {
    let json = folder.join("tokenizer.json");
    if json.exists() {
        return from_tokenizer_json(&json);
    }
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    if vocab.exists() && merges.exists() {
        return from_vocab_and_merges(folder, vocab, merges);
    }
    Err(ConvertError::NoTokenizer { folder: folder.into() })
}

/// What says which kind of tokenizer it is: read first, as the tables of other kinds differ.
#[derive(Deserialize)]
struct Kinds {
    normalizer: Option<Part>,
    pre_tokenizer: Option<Part>,
    post_processor: Option<Part>,
    decoder: Option<Part>,
    model: ModelKind,
}

#[derive(Deserialize)]
struct ModelKind {
    r#type: Option<Part>,
    byte_fallback: Option<Part>,
    ignore_merges: Option<Part>,
    dropout: Option<Part>,
    continuing_subword_prefix: Option<Part>,
    end_of_word_suffix: Option<Part>,
}

#[derive(Deserialize)]
struct Tables {
    #[serde(default, deserialize_with = "limits::list")]
    added_tokens: Vec<Added>,
    model: Bpe,
}

#[derive(Deserialize)]
struct Bpe {
    #[serde(deserialize_with = "limits::vocabulary")]
    vocab: BTreeMap<String, u32>,
    #[serde(deserialize_with = "limits::list")]
    merges: Vec<Merge>,
}

/// Written as one string until tokenizers 0.20, as a pair since.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Joined(String),
    Pair(String, String),
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

impl Added {
    fn flags(&self) -> AddedFlags {
        [
            (self.special, AddedFlags::SPECIAL),
            (self.single_word, AddedFlags::SINGLE_WORD),
            (self.lstrip, AddedFlags::LSTRIP),
            (self.rstrip, AddedFlags::RSTRIP),
            (self.normalized, AddedFlags::NORMALIZED),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .fold(AddedFlags::default(), |flags, (_, flag)| flags.with(flag))
    }
}

fn from_tokenizer_json(path: &Path) -> Result<TokenizerSection, ConvertError> {
    let text = read_text(path, MAX_TOKENIZER)?;
    let kinds: Kinds = parse_text(path, &text)?;
    let refuse = |cause: String| ConvertError::Tokenizer { path: path.into(), cause };
    refuse_other_kinds(&kinds).map_err(refuse)?;
    let add_prefix_space =
        kinds.pre_tokenizer.as_ref().is_some_and(|p| flag(&p.0, "add_prefix_space", true));
    let Tables { added_tokens, model: bpe } = serde_json::from_str(&text)
        .map_err(|error| refuse(format!("model: {}", one_line(&error.to_string()))))?;
    drop(text);

    let mut builder = TokenizerBuilder::new();
    builder.add_prefix_space(add_prefix_space);
    for (token, id) in &bpe.vocab {
        builder.token(token, *id);
    }
    for merge in &bpe.merges {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Joined(both) => split_merge(both)
                .ok_or_else(|| refuse(format!("merge {:?} is not two tokens", told(both))))?,
        };
        builder.merge(left, right);
    }
    for added in &added_tokens {
        builder.added_token(&added.content, added.id, added.flags());
    }
    build(&builder, vec![path.into()])
}

/// Two tokens with one space between: tokens write a space as `Ġ`.
fn split_merge(both: &str) -> Option<(&str, &str)> {
    let (left, right) = both.split_once(' ')?;
    (!left.is_empty() && !right.is_empty() && !right.contains(' ')).then_some((left, right))
}

fn flag(object: &Value, name: &str, absent: bool) -> bool {
    object.get(name).and_then(Value::as_bool).unwrap_or(absent)
}

/// The `type` of a part of the tokenizer, where it is more than one kind can have.
fn kind(part: &Value) -> String {
    name(part.get("type"))
}

fn name(kind: Option<&Value>) -> String {
    told(kind.and_then(Value::as_str).unwrap_or("unnamed"))
}

fn refuse_other_kinds(parsed: &Kinds) -> Result<(), String> {
    let model = &parsed.model;
    // Files of early versions of tokenizers do not name the model's type.
    if let Some(Part(found)) = &model.r#type
        && found != "BPE"
    {
        let found = name(Some(found));
        return Err(format!("model type {found} is not supported, only byte-level BPE is"));
    }
    let is_set = |part: &Option<Part>| part.as_ref().is_some_and(|part| part.0 == true);
    if is_set(&model.byte_fallback) || is_set(&model.ignore_merges) {
        return Err("byte_fallback and ignore_merges are not supported".into());
    }
    if model.dropout.as_ref().is_some_and(|dropout| dropout.0.as_f64().is_some_and(|p| p != 0.0)) {
        return Err("BPE dropout is not supported".into());
    }
    for (affix, found) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if found.as_ref().is_some_and(|f| f.0.as_str().is_some_and(|text| !text.is_empty())) {
            return Err(format!("{affix} is not supported"));
        }
    }
    if let Some(Part(normalizer)) = &parsed.normalizer {
        return Err(format!("normalizer {} is not supported", kind(normalizer)));
    }
    match parsed.pre_tokenizer.as_ref().map(|part| &part.0) {
        Some(pre) if kind(pre) == "ByteLevel" => {
            if !flag(pre, "use_regex", true) {
                return Err("pre_tokenizer without GPT-2's regex is not supported".into());
            }
        }
        Some(other) => {
            return Err(format!(
                "pre_tokenizer {} is not supported, only ByteLevel is",
                kind(other)
            ));
        }
        None => return Err("there is no ByteLevel pre_tokenizer".into()),
    }
    if let Some(Part(decoder)) = &parsed.decoder
        && kind(decoder) != "ByteLevel"
    {
        return Err(format!("decoder {} is not supported, only ByteLevel is", kind(decoder)));
    }
    match parsed.post_processor.as_ref().map(|part| &part.0) {
        Some(post) if !adds_nothing(post) => {
            Err(format!("post_processor {} that adds tokens is not supported", kind(post)))
        }
        _ => Ok(()),
    }
}

/// Whether a post-processor leaves the ids as they are: ByteLevel moves offsets only, and
/// transformers 5 writes a template of nothing but the text.
fn adds_nothing(post: &Value) -> bool {
    match &*kind(post) {
        "ByteLevel" => true,
        "TemplateProcessing" => post
            .get("single")
            .and_then(Value::as_array)
            .is_some_and(|parts| parts.len() == 1 && parts[0].get("Sequence").is_some()),
        "Sequence" => post
            .get("processors")
            .and_then(Value::as_array)
            .is_some_and(|parts| parts.iter().all(adds_nothing)),
        _ => false,
    }
}

fn from_vocab_and_merges(
    folder: &Path,
    vocab_path: PathBuf,
    merges_path: PathBuf,
) -> Result<TokenizerSection, ConvertError> {
    let Vocabulary(vocab) = parse_json(&vocab_path, MAX_TOKENIZER)?;
    let merges = read_text(&merges_path, MAX_TOKENIZER)?;
    let mut builder = TokenizerBuilder::new();
    for (token, id) in &vocab {
        builder.token(token, *id);
    }
    for (number, line) in merges.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        let (left, right) = split_merge(line).ok_or_else(|| ConvertError::Tokenizer {
            path: merges_path.clone(),
            cause: format!("line {} is not two tokens", number + 1),
        })?;
        builder.merge(left, right);
    }
    let mut files = vec![vocab_path, merges_path];
    add_beside(folder, &vocab, &mut builder, &mut files)?;
    build(&builder, files)
}

/// Makes the section, and has the runtime prove it.
fn build(
    builder: &TokenizerBuilder,
    files: Vec<PathBuf>,
) -> Result<TokenizerSection, ConvertError> {
    let refuse = |cause: String| ConvertError::Tokenizer { path: files[0].clone(), cause };
    let bytes = builder.build().map_err(|error| refuse(cause(&error.to_string())))?;
    let view = TokenizerView::new(&bytes).map_err(|error| refuse(error.to_string()))?;
    view.verify().map_err(|error| refuse(error.to_string()))?;
    let vocab_size = view.vocab_size();
    Ok(TokenizerSection { bytes, vocab_size, files })
}

/// Added tokens and options that stand in files beside `vocab.json`, as transformers reads them:
/// `tokenizer_config.json`, then the older `added_tokens.json`, then `<|endoftext|>`.
fn add_beside(
    folder: &Path,
    vocab: &BTreeMap<String, u32>,
    builder: &mut TokenizerBuilder,
    files: &mut Vec<PathBuf>,
) -> Result<(), ConvertError> {
    let mut added: BTreeMap<String, (u32, AddedFlags)> = BTreeMap::new();
    let older = folder.join("added_tokens.json");
    if older.exists() {
        let Vocabulary(tokens) = parse_json(&older, MAX_INDEX)?;
        added.extend(tokens.into_iter().map(|(t, id)| (t, (id, AddedFlags::NORMALIZED))));
        files.push(older);
    }
    if let Some(id) = vocab.get("<|endoftext|>") {
        added.insert("<|endoftext|>".into(), (*id, AddedFlags::SPECIAL));
    }
    let config = folder.join("tokenizer_config.json");
    if config.exists() {
        #[derive(Deserialize)]
        struct Described {
            content: String,
            #[serde(flatten)]
            rest: BTreeMap<String, Value>,
        }
        #[derive(Deserialize)]
        struct TokenizerConfig {
            #[serde(default)]
            add_prefix_space: bool,
            #[serde(default)]
            added_tokens_decoder: BTreeMap<u32, Described>,
        }
        let parsed: TokenizerConfig = parse_json(&config, MAX_INDEX)?;
        builder.add_prefix_space(parsed.add_prefix_space);
        for (id, token) in parsed.added_tokens_decoder {
            let set = |name| token.rest.get(name).and_then(Value::as_bool).unwrap_or(false);
            let described = Added {
                id,
                content: token.content.clone(),
                single_word: set("single_word"),
                lstrip: set("lstrip"),
                rstrip: set("rstrip"),
                normalized: set("normalized"),
                special: set("special"),
            };
            added.insert(token.content, (id, described.flags()));
        }
        files.push(config);
    }
    for (content, (id, flags)) in added {
        builder.added_token(&content, id, flags);
    }
    Ok(())
}
