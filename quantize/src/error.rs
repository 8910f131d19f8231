//! What can go wrong, one variant per rule. Every message is one line: the file, the cause, and
//! what to do where that is not plain.

use std::path::PathBuf;

use pocketgpt_runtime::error::{ConfigError, FormatError};

/// A checkpoint could not be converted, made or inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read`, `write` …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text to calibrate with has no tokens to speak of.
    #[error("{}: there is no text to calibrate with; give a file with some pages of it", path.display())]
    EmptyCalibration {
        /// The text's file.
        path: PathBuf,
    },
    /// A text is longer than any that is needed, or does not end.
    #[error("{}: the text is longer than {max} bytes; give a part of it", path.display())]
    LongText {
        /// The text's file.
        path: PathBuf,
        /// Most bytes that are read.
        max: u64,
    },
    /// Two files that are to be compared are not of one model.
    #[error("{}: the model has another shape than {}; give the same checkpoint converted with --to f32",
        reference.display(), path.display())]
    OtherShape {
        /// The file.
        path: PathBuf,
        /// What it is compared with.
        reference: PathBuf,
    },
    /// Fewer bits than all matrices take in q3.
    #[error(
        "the target is too small; the smallest possible is {smallest}, with everything in q3 \
         (--to q3 --head q3); for less take a smaller model"
    )]
    TargetTooSmall {
        /// With its unit.
        smallest: String,
    },
    /// More bits than all matrices take in q8.
    #[error("the target is too large; the largest possible is {largest}, with everything in q8")]
    TargetTooLarge {
        /// With its unit.
        largest: String,
    },
    /// A target without a text.
    #[error("a target size takes --method gptq")]
    TargetWithoutText,
    /// A text needs a tokenizer.
    #[error("calibrating takes a tokenizer; leave out --no-tokenizer, or use --method rtn")]
    CalibrationWithoutTokenizer,
    /// Numbers became infinite or NaN on the way through the layers.
    #[error("h.{layer}: activations are not finite on the calibration text; use --method rtn")]
    Diverged {
        /// Number of the block.
        layer: u16,
    },
    /// There is nothing at the source path.
    #[error("{}: no such checkpoint; give a Hugging Face folder or a .safetensors file", path.display())]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// A folder, pipe or device where a file should be.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// The source has no `config.json`.
    #[error("{}: there is no config.json; it must be beside the weights", folder.display())]
    NoConfig {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// The source has no weights.
    #[error(
        "{}: there is neither model.safetensors nor model.safetensors.index.json",
        folder.display()
    )]
    NoWeights {
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// The source has pickled weights only, which can run code when they are read.
    #[error(
        "{}: pickled weights are not read; save them as safetensors: python3 -c \
         \"from transformers import GPT2LMHeadModel as M; M.from_pretrained('IN').save_pretrained('OUT')\"",
        path.display()
    )]
    Pickled {
        /// The pickled file.
        path: PathBuf,
    },
    /// A JSON file is not JSON, or not what it should be.
    #[error("{}: {cause}", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Another architecture than GPT-2.
    #[error("{}: model_type is {found}, supported is gpt2", path.display())]
    NotGpt2 {
        /// `config.json`
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Something that GPT-2 checkpoints may have, and this program does not support.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// Where it is said.
        path: PathBuf,
        /// Its name and value.
        what: String,
    },
    /// A size is out of range, or sizes do not fit each other.
    #[error("{}: {source}", path.display())]
    Config {
        /// `config.json`
        path: PathBuf,
        /// Which.
        source: ConfigError,
    },
    /// A field of a JSON file has a value it cannot have.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    Field {
        /// Which file.
        path: PathBuf,
        /// Name of the field.
        field: String,
        /// What it is.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A safetensors file breaks a rule of its format.
    #[error("{}: not a valid safetensors file: {cause}", path.display())]
    Safetensors {
        /// Which file.
        path: PathBuf,
        /// The rule.
        cause: String,
    },
    /// A safetensors file ends before, or goes on behind, the end of its last tensor.
    #[error(
        "{}: the file has {found} bytes, its header asks for {expected}; copy or download it again",
        path.display()
    )]
    Length {
        /// Which file.
        path: PathBuf,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The index names a shard by something else than a plain file name.
    #[error("{}: shard name {name:?} is not a plain file name", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The index and the shards do not agree.
    #[error("{}: the index does not fit shard {shard}: {cause}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// The shard.
        shard: String,
        /// How.
        cause: String,
    },
    /// A tensor that the config asks for is missing.
    #[error("{}: tensor {name} is missing", path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// Its name in the checkpoint.
        name: String,
    },
    /// A tensor is there twice, with `transformer.` and without.
    #[error("{}: tensor {name} is there twice, with and without \"transformer.\"", path.display())]
    DuplicateTensor {
        /// The file of the second.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// Tensors that a GPT-2 language model does not have; ignoring them would change its text.
    #[error("{}: unexpected tensors: {names}", path.display())]
    UnexpectedTensors {
        /// The checkpoint.
        path: PathBuf,
        /// The first names, separated by commas.
        names: String,
    },
    /// A tensor's numbers are not f32, f16 or bf16.
    #[error("{}: tensor {tensor} is stored as {dtype}, supported are F32, F16 and BF16", path.display())]
    Dtype {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// What it is stored as.
        dtype: String,
    },
    /// A tensor's shape is not the one that follows from the config.
    #[error("{}: tensor {tensor} has shape {found:?}, config.json asks for {expected:?}", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// As the config asks for.
        expected: Vec<usize>,
        /// As found.
        found: Vec<usize>,
    },
    /// A tensor has infinite numbers or NaNs.
    #[error("{}: tensor {tensor} has {count} numbers that are infinite or NaN", path.display())]
    NotFinite {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// How many.
        count: usize,
    },
    /// Finite numbers become infinite in f16.
    #[error(
        "{}: {count} numbers of tensor {tensor} are too large for f16; use --to f32 or --to q8",
        path.display()
    )]
    F16Overflow {
        /// Which file.
        path: PathBuf,
        /// Which tensor.
        tensor: String,
        /// How many.
        count: usize,
    },
    /// The source has no tokenizer.
    #[error(
        "{}: there is neither tokenizer.json nor vocab.json with merges.txt; give --tokenizer DIR, \
         or --no-tokenizer for a file that takes token ids only",
        folder.display()
    )]
    NoTokenizer {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The tokenizer is not GPT-2's byte-level BPE, or its tables do not fit each other.
    #[error("{}: tokenizer: {cause}", path.display())]
    Tokenizer {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The tokenizer has ids that the model has not.
    #[error(
        "{}: the tokenizer has {found} entries, the model's vocab_size is only {vocab_size}",
        path.display()
    )]
    TokenizerTooLarge {
        /// Which file.
        path: PathBuf,
        /// Entries of the tokenizer.
        found: u32,
        /// The model's vocabulary.
        vocab_size: u32,
    },
    /// The output would replace a file of the source.
    #[error("{}: the output is a file of the source; choose another name", path.display())]
    OutputIsSource {
        /// The output path.
        path: PathBuf,
    },
    /// The output is a folder, a folder that is not empty, or where nothing can be written.
    #[error("{}: {cause}", path.display())]
    Output {
        /// The output path.
        path: PathBuf,
        /// What is wrong.
        cause: &'static str,
    },
    /// A `.pgpt` file breaks a rule of the format.
    #[error("{}: {source}", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// The rule.
        source: FormatError,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {cause}")]
    Threads {
        /// How many.
        threads: usize,
        /// Why.
        cause: String,
    },
    /// [`crate::Progress::is_cancelled`] said so.
    #[error("interrupted")]
    Cancelled,
}

impl ConvertError {
    /// An adapter for `map_err`: what was being done with which file.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
