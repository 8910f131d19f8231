//! What the integration tests share: checkpoints made into files, sessions, golden data.

pub mod counting;

use std::path::{Path, PathBuf};

use bytemuck::zeroed_vec;
use pocketgpt_quantize::source::SourceDtype;
use pocketgpt_quantize::synth::{Preset, SynthOptions, synthesize};
use pocketgpt_quantize::{ConvertOptions, Encoding, TokenizerChoice, convert};
use pocketgpt_runtime::decoding::{DecodingOptions, Sequence, StopReason};
use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::generate::{GenerateError, Generator, Observer};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use safetensors::{Dtype, SafeTensors};

/// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The instruction sets to test, slowest first: those that `POCKETGPT_ISA` names, with commas between,
/// else all that this CPU has. What a set computes does not depend on which emulated CPU runs it.
///
/// # Panics
///
/// If this CPU does not have what is named, or it is named in another order.
pub fn isas() -> Vec<Isa> {
    let Ok(only) = std::env::var("POCKETGPT_ISA") else { return Isa::available().collect() };
    let only: Vec<&str> = only.split(',').collect();
    let isas: Vec<Isa> = Isa::available().filter(|isa| only.contains(&isa.name())).collect();
    let found: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
    assert_eq!(found, only, "POCKETGPT_ISA: not what this CPU has, slowest first");
    isas
}

/// All of many cases, or of `n` parts the `k`-th if `POCKETGPT_TEST_PART` is `k/n`: emulated CPUs, on
/// which they would take hours, share them.
///
/// # Panics
///
/// If the variable is something else.
pub fn part_of<T>(cases: &[T]) -> impl Iterator<Item = &T> {
    let part = std::env::var("POCKETGPT_TEST_PART").unwrap_or("1/1".into());
    let numbers = part.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    let Some((k @ 1.., n)) = numbers.filter(|(k, n): &(usize, usize)| k <= n) else {
        panic!("POCKETGPT_TEST_PART={part}: it should be like 2/4")
    };
    cases.iter().skip(k - 1).step_by(n)
}

/// The bundled checkpoint.
pub fn bundled() -> PathBuf {
    repository("examples/model")
}

/// A checkpoint converted into a temporary file, or into one that is kept and used again: where
/// `POCKETGPT_TEST_FILES` names a folder, a slow machine can take what a fast one has left there.
pub struct Converted {
    file: MappedFile,
    _folder: Option<tempfile::TempDir>,
}

impl Converted {
    /// Converts with the checkpoint's tokenizer.
    pub fn new(checkpoint: &Path, to: Encoding) -> Self {
        Self::kept(checkpoint, &ConvertOptions { to, ..ConvertOptions::default() }, "")
    }

    /// Converts without a tokenizer.
    pub fn without_tokenizer(checkpoint: &Path, to: Encoding) -> Self {
        let tokenizer = TokenizerChoice::Skip;
        let options = ConvertOptions { to, tokenizer, ..ConvertOptions::default() };
        Self::kept(checkpoint, &options, "-bare")
    }

    /// Converts as told, always anew.
    pub fn with(checkpoint: &Path, options: &ConvertOptions) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("model.pgpt");
        convert(checkpoint, &path, options, &mut ()).unwrap_or_else(|e| panic!("{e}"));
        Self { file: MappedFile::open(&path).expect("just written"), _folder: Some(folder) }
    }

    fn kept(checkpoint: &Path, options: &ConvertOptions, end: &str) -> Self {
        let Some(kept) = std::env::var_os("POCKETGPT_TEST_FILES") else {
            return Self::with(checkpoint, options);
        };
        let name = checkpoint.file_name().expect("a folder").display();
        let path = Path::new(&kept).join(format!("{name}-{}{end}.pgpt", options.to.name()));
        if !path.exists() {
            convert(checkpoint, &path, options, &mut ()).unwrap_or_else(|e| panic!("{e}"));
        }
        Self { file: MappedFile::open(&path).expect("just written"), _folder: None }
    }

    /// The proven file.
    pub fn file(&self) -> WeightFile<'_> {
        WeightFile::new(self.file.bytes()).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A model with the fastest kernels of [`isas`].
    pub fn model(&self) -> Gpt2<'_> {
        self.model_on(*isas().last().expect("scalar code at least"))
    }

    /// A model with the kernels of an instruction set.
    pub fn model_on(&self, isa: Isa) -> Gpt2<'_> {
        Gpt2::new(self.file(), Kernels::for_isa(isa).expect("asked for what is available"))
    }
}

/// Makes a checkpoint of two layers of random numbers, with 64 positions.
pub fn synthesize_tiny(folder: &Path, seed: u64) {
    let options = SynthOptions { preset: Preset::Tiny, seed, dtype: SourceDtype::F32, force: true };
    synthesize(folder, &options, &mut ()).unwrap_or_else(|e| panic!("{e}"));
}

/// The same, converted.
pub fn tiny(seed: u64, to: Encoding) -> Converted {
    let folder = tempfile::tempdir().expect("a temporary folder");
    synthesize_tiny(folder.path(), seed);
    Converted::new(folder.path(), to)
}

/// Memory for a session, full of NaN: a session must not rely on what it finds there.
pub fn memory(model: &Gpt2<'_>, options: &SessionOptions) -> Vec<Line> {
    nan_lines(Plan::new(model.config(), options).expect("possible options").lines())
}

/// Lines full of NaN.
pub fn nan_lines(len: usize) -> Vec<Line> {
    let mut lines: Vec<Line> = zeroed_vec(len);
    bytemuck::cast_slice_mut::<_, u8>(&mut lines).fill(0xff);
    lines
}

/// Runs `f` with a session.
pub fn with_session<T>(
    model: Gpt2<'_>,
    options: &SessionOptions,
    f: impl FnOnce(&mut Session<'_, '_>) -> T,
) -> T {
    let mut memory = memory(&model, options);
    f(&mut Session::new(model, options, &mut memory).expect("memory as planned"))
}

/// Tensors of a safetensors file.
pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    /// Reads a file.
    pub fn open(path: &Path) -> Self {
        Self { bytes: std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    fn tensor(&self, name: &str, dtype: Dtype) -> Vec<[u8; 4]> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let tensor = tensors.tensor(name).expect("a golden tensor");
        assert_eq!(tensor.dtype(), dtype);
        tensor.data().as_chunks().0.to_vec()
    }

    /// An f32 tensor.
    pub fn f32s(&self, name: &str) -> Vec<f32> {
        self.tensor(name, Dtype::F32).into_iter().map(f32::from_le_bytes).collect()
    }

    /// An i32 tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.tensor(name, Dtype::I32).into_iter().map(u32::from_le_bytes).collect()
    }
}

/// Largest difference, and a panic where one is not a number.
pub fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |max, d| {
        if d <= max {
            max
        } else {
            assert!(!d.is_nan());
            d
        }
    })
}

/// Numbers as bits, to compare exactly.
pub fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A text that was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// What follows the prompt.
    pub tokens: Vec<u32>,
    /// With beam search.
    pub score: Option<f32>,
    /// Why it ends.
    pub stop_reason: StopReason,
}

/// Memory for a session and a generator, full of NaN, and what they write after a prompt.
pub fn generate(
    model: Gpt2<'_>,
    base: &SessionOptions,
    options: &DecodingOptions<'_>,
    prompt: &[u32],
    par: &dyn Parallel,
    observer: &mut dyn Observer,
) -> Result<Vec<Text>, GenerateError> {
    let config = *model.config();
    let session = options.session_options(base, prompt.len());
    let mut own = nan_lines(Generator::lines(&config, options, prompt.len())?);
    let mut generator = Generator::new(&config, options, prompt.len(), &mut own)?;
    with_session(model, &session, |session| generator.run(session, par, prompt, observer))?;
    let text = |sequence: Sequence<'_>| Text {
        tokens: sequence.tokens.to_vec(),
        score: sequence.score,
        stop_reason: sequence.stop_reason,
    };
    Ok(generator.sequences().map(text).collect())
}

/// Looks at nothing.
pub struct Quiet;
impl Observer for Quiet {}
