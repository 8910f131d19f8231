//! Opening a model file, and saying what is wrong with one that cannot be opened.

use std::io::{self, ErrorKind};
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::error::FormatError;
use pocketgpt_runtime::format::header::{Header, decode_config};
use pocketgpt_runtime::format::tensor::{NO_LAYER, canonical, tensor_count};
use pocketgpt_runtime::format::{Encoding, MAGIC, MappedFile, Role, TensorEntry, WeightFile};
use pocketgpt_runtime::huge_pages::HugePages;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::tokenizer::TokenizerView;

use crate::args::{ModelArgs, RunArgs};
use crate::embedded;

const COPY_AGAIN: &str = "copy or convert the model again";
const HUGE_PAGES: &str = "--huge-pages";

/// The bytes of a model, where they are.
#[derive(Debug)]
pub struct Model {
    name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Bundled(&'static [u8]),
    Mapped(MappedFile),
    Copied(HugePages),
    Made(Vec<Line>),
}

impl Model {
    /// The model that the command line names.
    pub fn open(args: &ModelArgs) -> Result<Self> {
        match &args.model {
            Some(path) => Self::load(path, args.no_mmap.then_some("--no-mmap")),
            None => Self::bundled(),
        }
    }

    /// The model that the command line names, for running it.
    pub fn open_to_run(args: &ModelArgs, run: &RunArgs) -> Result<Self> {
        let Some(path) = &args.model else {
            let model = Self::bundled()?;
            if !run.huge_pages {
                return Ok(model);
            }
            let copy = HugePages::zeroed(model.bytes().len()).map(|mut copy| {
                copy.bytes_mut().copy_from_slice(model.bytes());
                copy
            });
            return Self::copied(model.name, HUGE_PAGES, copy);
        };
        Self::load(path, copied_by(args, run))
    }

    /// A model file of this name, not yet checked; `copied_by` is the option that wants it copied
    /// into memory, if one does.
    pub fn load(path: &Path, copied_by: Option<&'static str>) -> Result<Self> {
        // Mapped first in any case, for its errors; read then, not copied from the map, which would
        // have the whole file in RAM twice, and end the program where the file has been shortened.
        let model = Self::map(path)?;
        match copied_by {
            Some(option) => Self::copied(model.name, option, HugePages::read(path)),
            None => Ok(model),
        }
    }

    fn copied(name: String, option: &str, copy: io::Result<HugePages>) -> Result<Self> {
        let copy = copy.map_err(|error| anyhow!("{name}: {option}: {error}; leave it out"))?;
        Ok(Self { name, bytes: Bytes::Copied(copy) })
    }

    fn bundled() -> Result<Self> {
        let Some(bytes) = embedded::model() else {
            bail!("this program was built without a model; name a file with -m FILE");
        };
        Ok(Self { name: "bundled model".into(), bytes: Bytes::Bundled(bytes) })
    }

    /// A model file of this name, not yet checked.
    fn map(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        if path.is_dir() {
            bail!("{name}: {}", about_directory(path));
        }
        let map = MappedFile::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!(
                "{name}: no such file; check the path, or leave out -m to use the bundled model"
            ),
            ErrorKind::PermissionDenied => {
                anyhow!("{name}: permission denied; make the file readable")
            }
            ErrorKind::InvalidInput => {
                anyhow!("{name}: {error}; a model is mapped into memory, so give a file on disk")
            }
            ErrorKind::FileTooLarge => {
                anyhow!("{name}: {error}; take a smaller model, or a 64-bit system")
            }
            _ => anyhow!("{name}: {error}; check the file"),
        })?;
        Ok(Self { name, bytes: Bytes::Mapped(map) })
    }

    /// A model that this program has made.
    pub fn in_memory(name: String, lines: Vec<Line>) -> Self {
        Self { name, bytes: Bytes::Made(lines) }
    }

    /// Its name in messages: the path, or `bundled model`.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Bundled(bytes) => bytes,
            Bytes::Mapped(map) => map.bytes(),
            Bytes::Copied(copy) => copy.bytes(),
            Bytes::Made(lines) => bytemuck::cast_slice(lines),
        }
    }

    /// Proves header and directory; takes microseconds and reads no weight.
    pub fn weights(&self) -> Result<WeightFile<'_>> {
        WeightFile::new(self.bytes()).map_err(|error| self.format_error(&error))
    }

    /// A broken rule of the format, as a message that names the file and the tensor.
    pub fn format_error(&self, error: &FormatError) -> anyhow::Error {
        let (name, bytes) = (&self.name, self.bytes());
        if bytes.is_empty() {
            return anyhow!("{name}: the file is empty; {COPY_AGAIN}");
        }
        if !bytes.starts_with(&MAGIC) {
            return anyhow!("{name}: {}", about_foreign_file(bytes));
        }
        match error {
            FormatError::TooShort { len } => {
                anyhow!("{name}: only {len} bytes, the file was cut short; {COPY_AGAIN}")
            }
            // Its text says what to do.
            FormatError::UnsupportedVersion { .. } => anyhow!("{name}: {error}"),
            _ => anyhow!("{name}: {}; {COPY_AGAIN}", naming_the_tensor(error, bytes)),
        }
    }

    /// The tokenizer, for commands that do not work without.
    pub fn tokenizer(&self) -> Result<TokenizerView<'_>> {
        let tokenizer = self.weights()?.tokenizer().map_err(|error| self.format_error(&error))?;
        tokenizer.ok_or_else(|| {
            anyhow!(
                "{}: the file has no tokenizer; convert the model again with one, or give token ids",
                self.name
            )
        })
    }

    /// The ids of a text to go on from: as many as the model has positions for, and at least one.
    pub fn prompt_ids(&self, text: &str) -> Result<Vec<u32>> {
        let ids = self.text_ids(text)?;
        let (found, fit) = (ids.len(), self.weights()?.config().n_ctx as usize);
        if found > fit {
            bail!("{}: the text has {found} tokens, {fit} fit; shorten it", self.name);
        }
        Ok(ids)
    }

    /// The ids of a text of any length to go on from, at least one.
    pub fn text_ids(&self, text: &str) -> Result<Vec<u32>> {
        let config = *self.weights()?.config();
        if text.is_empty() {
            let begin = config.bos_token_id.or(config.eos_token_id).ok_or_else(|| {
                anyhow!("{}: the model names no token to begin a text with; give a text", self.name)
            })?;
            return Ok(vec![begin]);
        }
        Ok(self.tokenizer()?.encode_to_vec(text))
    }

    /// A text's ids without the one that [`Model::prompt_ids`] begins an empty text with.
    pub fn without_beginning<'t>(&self, ids: &'t [u32]) -> Result<&'t [u32]> {
        let config = *self.weights()?.config();
        let begin = config.bos_token_id.or(config.eos_token_id);
        Ok(ids.strip_prefix(begin.as_slice()).unwrap_or(ids))
    }

    /// The metadata's JSON; null if there is none or it is not JSON, as it is only told about.
    pub fn metadata(&self) -> Result<serde_json::Value> {
        let text = self.weights()?.metadata().map_err(|error| self.format_error(&error))?;
        Ok(serde_json::from_str(text).unwrap_or_default())
    }
}

/// The option that wants the file in memory.
pub fn copied_by(args: &ModelArgs, run: &RunArgs) -> Option<&'static str> {
    if run.huge_pages { Some(HUGE_PAGES) } else { args.no_mmap.then_some("--no-mmap") }
}

fn about_directory(path: &Path) -> String {
    let has = |name| path.join(name).exists();
    if has("config.json") || has("model.safetensors") {
        let path = path.display();
        return format!(
            "this is a Hugging Face folder; convert it first: pocketgpt-quantize convert {path} -o model.pgpt"
        );
    }
    "this is a directory; give a .pgpt file".into()
}

/// What a file is that does not begin as ours do.
fn about_foreign_file(bytes: &[u8]) -> String {
    let kind = match bytes {
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        // Eight bytes of length, then JSON.
        [_, _, _, _, _, _, _, 0, b'{', ..] => {
            return "this is a safetensors file, not a .pgpt file; convert its folder first: \
                    pocketgpt-quantize convert FOLDER -o model.pgpt"
                .into();
        }
        [b'P', b'K', 3, 4, ..] => "a PyTorch checkpoint or a zip file",
        _ => return "not a .pgpt file; make one with pocketgpt-quantize convert".into(),
    };
    format!(
        "this is {kind}, not a .pgpt file; save the model as safetensors and use pocketgpt-quantize convert"
    )
}

/// The error's text with the tensor's name in place of its number.
fn naming_the_tensor(error: &FormatError, bytes: &[u8]) -> String {
    let text = error.to_string();
    let named = || {
        let tensor = tensor_of(error)?;
        let span = Header::decode(bytes).ok()?.sections[0];
        let end = usize::try_from(span.end()?).ok()?;
        let config = decode_config(bytes.get(span.offset as usize..end)?).ok()?;
        ((tensor as usize) < tensor_count(&config)).then(|| {
            let name = tensor_name_at(&config, tensor as usize);
            text.replace(&format!("tensor {tensor}"), &format!("tensor {name}"))
        })
    };
    named().unwrap_or(text)
}

/// Place in the directory of the tensor that an error is about.
fn tensor_of(error: &FormatError) -> Option<u32> {
    use FormatError as E;
    match *error {
        E::TensorOrder { tensor }
        | E::UnknownEncoding { tensor, .. }
        | E::UnknownPacking { tensor, .. }
        | E::EncodingNotAllowed { tensor }
        | E::PackingNotAllowed { tensor }
        | E::GroupSize { tensor, .. }
        | E::TensorShape { tensor }
        | E::TensorOffset { tensor }
        | E::TensorLength { tensor }
        | E::UnknownCodebook { tensor }
        | E::EntryReservedNotZero { tensor }
        | E::TensorCrc { tensor }
        | E::TensorPadding { tensor }
        | E::NotFinite { tensor }
        | E::OutsideRange { tensor } => Some(tensor),
        _ => None,
    }
}

fn tensor_name_at(config: &Gpt2Config, index: usize) -> String {
    let (role, layer) = canonical(config, index);
    tensor_name(role, layer)
}

/// A tensor's name in a checkpoint.
pub fn tensor_name(role: Role, layer: u16) -> String {
    if layer == NO_LAYER { role.name().into() } else { format!("h.{layer}.{}", role.name()) }
}

/// Matrices of the blocks are what a file's encoding means; the head may have another one.
pub fn block_encoding(file: &WeightFile<'_>) -> Encoding {
    file.tensor(Role::CAttnWeight, 0).entry.encoding
}

/// Bits per weight of the matrices, scales and padding included.
pub fn bits_per_weight(file: &WeightFile<'_>) -> f64 {
    let (mut bytes, mut weights) = (0, 0);
    for TensorEntry { len, rows, cols, .. } in
        file.tensors().map(|tensor| tensor.entry).filter(|entry| entry.role.is_matrix())
    {
        bytes += len;
        weights += u64::from(rows) * u64::from(cols);
    }
    8.0 * bytes as f64 / weights as f64
}

/// Bytes of weights that every new token reads: all but the embeddings, of which it reads a row.
pub fn bytes_per_token(file: &WeightFile<'_>) -> u64 {
    let tied = file.config().tied_head;
    file.tensors()
        .map(|tensor| tensor.entry)
        .filter(|entry| !matches!((entry.role, tied), (Role::Wpe, _) | (Role::Wte, false)))
        .map(|entry| entry.len)
        .sum()
}

/// Multiply-adds with weights that reading some tokens, at least one, takes, when the logits behind
/// the last one are wanted: in the last block the others only leave a key and a value.
pub fn macs_of_prompt(file: &WeightFile<'_>, tokens: u64) -> u64 {
    let last = file.config().n_layer as u16 - 1;
    let of_matrix = |entry: &TensorEntry| {
        let weights = u64::from(entry.rows) * u64::from(entry.cols);
        match entry.role {
            _ if entry.layer != last => tokens * weights,
            Role::CAttnWeight => (tokens - 1) * weights / 3 * 2 + weights,
            _ => weights,
        }
    };
    let entries = file.tensors().map(|tensor| tensor.entry);
    let blocks = entries.filter(|entry| entry.role.in_block() && entry.role.is_matrix());
    let head = file.head().entry;
    blocks.map(|entry| of_matrix(&entry)).sum::<u64>() + u64::from(head.rows) * u64::from(head.cols)
}
