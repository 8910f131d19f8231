//! A checkpoint becomes a file, tensor by tensor: at most one tensor of the checkpoint is in
//! memory, and a few megabytes of the file.

use std::path::{Path, PathBuf};

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::encode::FileLayout;
use pocketgpt_runtime::format::{Encoding, Packing, Role, TensorEntry};
use pocketgpt_runtime::quant::tile::{self, ROWS};
use pocketgpt_runtime::tokenizer::TokenizerView;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::allocate::{self, Encodings, LADDER, Target};
use crate::calibrate::text::{self, Windows};
use crate::calibrated::{Calibrated, Reader};
use crate::error::ConvertError;
use crate::gpt2_names::{self, NamedTensors, is_transposed};
use crate::hf_config;
use crate::numbers::{SourceMatrix, count_not_finite, read_numbers};
use crate::pack::{BlockScratch, Loss, encode_block, encode_numbers};
use crate::progress::Progress;
use crate::report::{self, DivergenceReport, Recipe, Report, SourceReport, TensorReport};
use crate::source::{Checkpoint, SourceDtype, SourceTensor, checkpoint_folder, read_sample};
use crate::survey::Survey;
use crate::threads::on_threads;
use crate::tokenizer::{self, TokenizerSection};
use crate::verify;
use crate::writer::{self, Writer};

/// Program and version, as it stands in files.
pub const TOOL: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// What models are calibrated with if nothing else is given: stories and fairy tales in the public
/// domain.
pub const BUILT_IN_TEXT: &str = include_str!("../data/calibration.txt");
/// Longest window of text that a model is calibrated with.
const MAX_WINDOW: usize = 1024;

/// Bytes of the file that are made at a time.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes a number of the metadata's `quality` may need, its comma included.
const QUALITY_BYTES: usize = 12;

/// How to convert.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// Encoding of the matrices.
    pub to: Encoding,
    /// Encoding of `wte` and `lm_head`; by default `to`, but q8 where `to` is q4 and q4 where it is
    /// q3: every token's logits come from there.
    pub head: Option<Encoding>,
    /// How q8, q4 and q3 matrices are rounded.
    pub method: Method,
    /// Size of the file, for which q3, q4 and q8 are chosen matrix by matrix instead of `to` and
    /// `head`; takes [`Method::Gptq`].
    pub target: Option<Target>,
    /// Which tokenizer the file gets.
    pub tokenizer: TokenizerChoice,
    /// Threads to work with; by default as many as there are CPUs. The bytes do not depend on it.
    pub threads: Option<usize>,
}

impl Default for ConvertOptions {
    /// q8 with the checkpoint's tokenizer, each matrix for itself.
    fn default() -> Self {
        Self {
            to: Encoding::Q8,
            head: None,
            method: Method::Rtn,
            target: None,
            tokenizer: TokenizerChoice::FromSource,
            threads: None,
        }
    }
}

impl ConvertOptions {
    /// The encoding of `wte` and `lm_head`.
    pub fn head_encoding(&self) -> Encoding {
        self.head.unwrap_or(match self.to {
            Encoding::Q4 => Encoding::Q8,
            Encoding::Q3 => Encoding::Q4,
            to => to,
        })
    }
}

/// How matrices are rounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Each group of 32 weights to the grid that is nearest to it.
    Rtn,
    /// So that the model's predictions on a text change least, see `docs/quantization.md`: some
    /// minutes for 124 million parameters. Matrices that stay float are only stored.
    Gptq {
        /// The text.
        text: CalibrationText,
        /// Most tokens of it that are used; by default [`Method::default_tokens`].
        tokens: Option<usize>,
    },
}

impl Method {
    /// Tokens that are used where nothing is said: fewer for large models, whose tokens take long.
    pub fn default_tokens(config: &Gpt2Config) -> usize {
        if config.parameter_count() < 50_000_000 { 1 << 17 } else { 1 << 16 }
    }
}

/// What a model is calibrated with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CalibrationText {
    /// English stories that come with the program.
    BuiltIn,
    /// A file of documents with `<|endoftext|>` between them.
    File(PathBuf),
}

/// Which tokenizer a file gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// The one in the checkpoint's folder; it is an error if there is none.
    FromSource,
    /// The one in this folder.
    From(PathBuf),
    /// None: the file takes token ids only.
    Skip,
}

/// Converts the checkpoint `source`, a Hugging Face folder or a `.safetensors` file beside its
/// `config.json`, to the file `output`, replacing what was there once the new file is complete.
///
/// The same checkpoint and options give the same bytes, on every machine and with any number of
/// threads. On an error nothing is left behind.
///
/// # Errors
/// [`ConvertError`]: one line that names the file, the cause and, where it is not plain, what to do.
pub fn convert(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn Progress,
) -> Result<Report, ConvertError> {
    on_threads(options.threads, || convert_here(source, output, options, progress))
}

/// Converts on the threads that this one belongs to.
fn convert_here(
    source: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn Progress,
) -> Result<Report, ConvertError> {
    let folder = checkpoint_folder(source)?;
    let mut hf = hf_config::read(&folder)?;
    let mut checkpoint = Checkpoint::open(source)?;
    let named = gpt2_names::resolve(&mut checkpoint, &mut hf.config)?;
    let tokenizer = read_tokenizer(&folder, &hf.config, options)?;
    refuse_source_as_output(&checkpoint, tokenizer.as_ref(), output)?;

    let text = calibration_text(&hf.config, tokenizer.as_ref(), options)?;
    if options.target.is_some() && text.is_none() {
        return Err(ConvertError::TargetWithoutText);
    }
    let mut metadata = Metadata {
        tool: TOOL,
        source: SourceReport { name: own_name(source), sha256: "0".repeat(64) },
        recipe: Recipe::new(options, tokenizer.is_some(), text.as_ref()),
        generation: hf.generation,
        divergence: text.as_ref().map(|_| DivergenceReport::LONGEST),
        quality: vec![],
    };
    let tokenizer_bytes = tokenizer.map_or(vec![], |section| section.bytes);
    let metadata_len = metadata.json().len() + QUALITY_BYTES * named.tensors.len();
    let wpe = wpe_encoding(&mut checkpoint, &named, options)?;
    let lay_out = |encodings: &Encodings| {
        let encoding = |role: Role, layer| match role {
            Role::Wpe => wpe,
            role if role.is_matrix() => encodings.of(role, layer),
            _ => Encoding::F32,
        };
        FileLayout::new(&hf.config, tokenizer_bytes.len(), metadata_len, encoding)
            .map_err(|source| ConvertError::Config { path: folder.join("config.json"), source })
    };

    let all_bytes: u64 = named.tensors.iter().map(|t| t.byte_len() as u64).sum();
    let n_layer = hf.config.n_layer;
    let mut encodings = Encodings::uniform(options.head_encoding(), options.to, n_layer);
    let mut calibrated = None;
    match text {
        None => progress.start(all_bytes),
        Some(text) => {
            let smallest = lay_out(&Encodings::uniform(LADDER[0], LADDER[0], n_layer))?;
            let file_len = smallest.file_len();
            let room = |target| allocate::room(&hf.config, target, file_len);
            let room = options.target.map(room).transpose()?;
            let mut reader =
                Reader { checkpoint: &mut checkpoint, named: &named, config: hf.config };
            let blocks: u64 = (0..n_layer as usize).map(|l| reader.block_bytes(l)).sum();
            progress.start(all_bytes + blocks);
            let mut survey = Survey::new(&mut reader, text, room.is_some(), progress)?;
            if let Some(room) = room {
                encodings = survey.choose(&mut reader, room, progress)?;
            }
            calibrated = Some(survey.begin(encodings.clone(), wpe, progress)?);
        }
    }
    let layout = lay_out(&encodings)?;
    let (entries, file_len) = (layout.entries.clone(), layout.file_len());
    let mut hash = Sha256::new();
    hash.update(&hf.text);
    let mut tensors = Vec::with_capacity(entries.len());
    let mut total = Totals::default();
    let mut work = Work { writer: Writer::create(output, layout)?, out: vec![], progress };
    let mut bytes = Vec::new();
    for (entry, tensor) in entries.iter().zip(&named.tensors) {
        work.progress.tensor(&tensor.name);
        checkpoint.read(tensor, 0..tensor.byte_len(), &mut bytes)?;
        hash_tensor(&mut hash, entry, tensor, &bytes);
        let fitted = match &mut calibrated {
            None => None,
            Some(calibrated) => {
                let mut reader =
                    Reader { checkpoint: &mut checkpoint, named: &named, config: hf.config };
                calibrated.tensor(&mut reader, entry, work.progress)?
            }
        };
        let loss = match fitted {
            Some((made, loss)) => {
                work.writer.write(&made)?;
                work.advance(bytes.len())?;
                loss
            }
            None => work.encode(checkpoint.path_of(tensor), entry, tensor, &bytes)?,
        };
        total.add(entry, &loss);
        tensors.push(TensorReport::new(entry, &loss));
    }
    hash.update(&tokenizer_bytes);

    metadata.source.sha256 = hex(&hash.finalize());
    metadata.quality = tensors.iter().map(|t| t.snr_db).collect();
    let Work { writer, progress, .. } = work;
    let divergence = calibrated.as_ref().and_then(Calibrated::divergence);
    metadata.divergence = divergence.map(DivergenceReport::new);
    let file = writer.finish(&tokenizer_bytes, &metadata.json(), metadata_len)?;
    verify::check(file.path(), output, false)?;
    if progress.is_cancelled() {
        return Err(ConvertError::Cancelled);
    }
    writer::persist(file, output)?;
    progress.finish();
    Ok(Report {
        tool: TOOL.into(),
        source: metadata.source,
        recipe: metadata.recipe,
        tensors,
        file_bytes: file_len,
        tokenizer_bytes: tokenizer_bytes.len() as u64,
        parameters: hf.config.parameter_count(),
        divergence: metadata.divergence,
        bits_per_weight: report::bits_per_weight(total.bytes, total.weights),
        snr_db: report::snr_db(&total.loss),
    })
}

/// JSON text of the file's metadata section.
#[derive(Serialize)]
struct Metadata {
    tool: &'static str,
    source: SourceReport,
    recipe: Recipe,
    /// Sampling defaults of the checkpoint.
    generation: Map<String, Value>,
    /// What conversion cost on text that nothing was fitted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    divergence: Option<DivergenceReport>,
    /// Signal to noise in dB per tensor, in the order of the directory; null if nothing was lost.
    quality: Vec<Option<f64>>,
}

impl Metadata {
    fn json(&self) -> String {
        serde_json::to_string(self).expect("maps with text keys and finite numbers")
    }
}

/// Sums over all matrices.
#[derive(Default)]
struct Totals {
    bytes: u64,
    weights: u64,
    loss: Loss,
}

impl Totals {
    fn add(&mut self, entry: &TensorEntry, loss: &Loss) {
        if entry.packing == Packing::Tile16 {
            self.bytes += entry.len;
            self.weights += report::weights(entry);
            self.loss += *loss;
        }
    }
}

fn read_tokenizer(
    folder: &Path,
    config: &Gpt2Config,
    options: &ConvertOptions,
) -> Result<Option<TokenizerSection>, ConvertError> {
    let section = match &options.tokenizer {
        TokenizerChoice::Skip => return Ok(None),
        TokenizerChoice::FromSource => tokenizer::read(folder)?,
        TokenizerChoice::From(other) => tokenizer::read(other)?,
    };
    if section.vocab_size > config.vocab_size {
        return Err(ConvertError::TokenizerTooLarge {
            path: section.files[0].clone(),
            found: section.vocab_size,
            vocab_size: config.vocab_size,
        });
    }
    Ok(Some(section))
}

/// The windows that the method asks for.
fn calibration_text(
    config: &Gpt2Config,
    tokenizer: Option<&TokenizerSection>,
    options: &ConvertOptions,
) -> Result<Option<Windows>, ConvertError> {
    let Method::Gptq { text, tokens } = &options.method else { return Ok(None) };
    let rounded = Encoding::is_quantized;
    if options.target.is_none() && !rounded(options.to) && !rounded(options.head_encoding()) {
        return Ok(None);
    }
    let section = tokenizer.ok_or(ConvertError::CalibrationWithoutTokenizer)?;
    let view = TokenizerView::new(&section.bytes).expect("made by the builder");
    let (text, path) = match text {
        CalibrationText::BuiltIn => (BUILT_IN_TEXT.into(), Path::new("built-in text")),
        CalibrationText::File(path) => (read_sample(path)?, &**path),
    };
    let stream = text::stream(&text, config.eos_token_id, |text| view.encode_to_vec(text));
    let length = (config.n_ctx as usize).min(MAX_WINDOW);
    let windows =
        Windows::new(&stream, length, tokens.unwrap_or_else(|| Method::default_tokens(config)));
    windows.map(Some).ok_or_else(|| ConvertError::EmptyCalibration { path: path.into() })
}

fn refuse_source_as_output(
    checkpoint: &Checkpoint,
    tokenizer: Option<&TokenizerSection>,
    output: &Path,
) -> Result<(), ConvertError> {
    // A file that does not exist yet is none of the source's.
    let Ok(real) = output.canonicalize() else { return Ok(()) };
    let config = checkpoint.folder.join("config.json");
    let files = tokenizer.map_or(&[][..], |section| &section.files);
    let mut sources = checkpoint.paths().chain([&*config]).chain(files.iter().map(|f| &**f));
    if sources.any(|file| file.canonicalize().is_ok_and(|file| file == real)) {
        return Err(ConvertError::OutputIsSource { path: output.into() });
    }
    Ok(())
}

/// f16 for `wpe`, unless nothing may be lost or a number is too large for it.
fn wpe_encoding(
    checkpoint: &mut Checkpoint,
    named: &NamedTensors,
    options: &ConvertOptions,
) -> Result<Encoding, ConvertError> {
    if options.to == Encoding::F32 && options.target.is_none() {
        return Ok(Encoding::F32);
    }
    let wpe = &named.tensors[1];
    let dtype = dtype_of(wpe);
    let mut bytes = Vec::new();
    checkpoint.read(wpe, 0..wpe.byte_len(), &mut bytes)?;
    let mut numbers = vec![0.0; bytes.len() / dtype.width()];
    read_numbers(dtype, &bytes, &mut numbers);
    let fits = numbers.iter().all(|x| half::f16::from_f32(*x).is_finite());
    Ok(if fits { Encoding::F16 } else { Encoding::F32 })
}

pub(crate) fn dtype_of(tensor: &SourceTensor) -> SourceDtype {
    SourceDtype::from_safetensors(tensor.dtype).expect("checked when names were resolved")
}

fn hash_tensor(hash: &mut Sha256, entry: &TensorEntry, tensor: &SourceTensor, bytes: &[u8]) {
    hash.update(gpt2_names::tensor_name(entry.role, entry.layer));
    hash.update(format!(" {:?}\n", tensor.dtype));
    hash.update(bytes);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Last part of a path: files do not tell where on a machine they were made.
fn own_name(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.into());
    real.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// What encoding needs from one tensor to the next.
struct Work<'a> {
    writer: Writer,
    /// Bytes of the file being made.
    out: Vec<u8>,
    progress: &'a mut dyn Progress,
}

impl Work<'_> {
    /// Encodes and writes a tensor, `bytes` being the checkpoint's.
    fn encode(
        &mut self,
        path: &Path,
        entry: &TensorEntry,
        tensor: &SourceTensor,
        bytes: &[u8],
    ) -> Result<Loss, ConvertError> {
        let dtype = dtype_of(tensor);
        let count = count_not_finite(dtype, bytes);
        if count > 0 {
            let (path, tensor) = (path.into(), tensor.name.clone());
            return Err(ConvertError::NotFinite { path, tensor, count });
        }
        let loss = match entry.packing {
            Packing::Rows => self.encode_rows(entry, dtype, bytes)?,
            Packing::Tile16 => self.encode_tiles(entry, dtype, bytes)?,
        };
        if loss.overflows > 0 {
            let (path, tensor) = (path.into(), tensor.name.clone());
            return Err(ConvertError::F16Overflow { path, tensor, count: loss.overflows });
        }
        Ok(loss)
    }

    fn encode_rows(
        &mut self,
        entry: &TensorEntry,
        dtype: SourceDtype,
        bytes: &[u8],
    ) -> Result<Loss, ConvertError> {
        let mut numbers = vec![0.0; bytes.len() / dtype.width()];
        read_numbers(dtype, bytes, &mut numbers);
        self.out.resize(entry.len as usize, 0);
        let loss = encode_numbers(entry.encoding, &numbers, &mut self.out);
        self.writer.write(&self.out)?;
        self.advance(bytes.len())?;
        Ok(loss)
    }

    fn encode_tiles(
        &mut self,
        entry: &TensorEntry,
        dtype: SourceDtype,
        bytes: &[u8],
    ) -> Result<Loss, ConvertError> {
        let (rows, cols) = (entry.rows as usize, entry.cols as usize);
        let transposed = is_transposed(entry.role);
        let matrix = SourceMatrix { bytes, dtype, transposed, rows, cols };
        let record_len = tile::record_len(entry.encoding, cols);
        let blocks = tile::blocks(rows);
        let at_a_time = (CHUNK_BYTES / record_len).clamp(1, blocks);
        let mut total = Loss::default();
        let mut done = 0;
        for first in (0..blocks).step_by(at_a_time) {
            let count = at_a_time.min(blocks - first);
            self.out.resize(count * record_len, 0);
            let losses = encode_blocks(&matrix, entry.encoding, first, record_len, &mut self.out);
            // Summed in order, so that the total does not depend on the threads.
            losses.into_iter().for_each(|loss| total += loss);
            self.writer.write(&self.out)?;
            let end = bytes.len() as u64 * (first + count) as u64 / blocks as u64;
            self.advance(end as usize - done)?;
            done = end as usize;
        }
        Ok(total)
    }

    fn advance(&mut self, bytes: usize) -> Result<(), ConvertError> {
        self.progress.advance(bytes as u64);
        if self.progress.is_cancelled() { Err(ConvertError::Cancelled) } else { Ok(()) }
    }
}

/// Encodes the blocks from `first` on that `out` has room for.
fn encode_blocks(
    matrix: &SourceMatrix<'_>,
    encoding: Encoding,
    first: usize,
    record_len: usize,
    out: &mut [u8],
) -> Vec<Loss> {
    let memory = || (vec![0.0; ROWS * matrix.cols], BlockScratch::new(matrix.cols));
    out.par_chunks_mut(record_len)
        .enumerate()
        .map_init(memory, |(rows, scratch), (i, record)| {
            matrix.read_block(first + i, rows);
            encode_block(encoding, rows, None, scratch, record)
        })
        .collect()
}
