//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use pocketgpt_quantize::source::SourceDtype;
use pocketgpt_quantize::synth::Preset;
use pocketgpt_quantize::{
    CalibrationText, ConvertOptions, Encoding, Method, Target, TokenizerChoice,
};

#[derive(Debug, Parser)]
#[command(
    name = "pocketgpt-quantize",
    version,
    about = "Turns a GPT-2 checkpoint into one compact .pgpt file",
    after_help = "Examples:\n  \
        pocketgpt-quantize convert gpt2/ -o gpt2.pgpt\n  \
        pocketgpt-quantize convert gpt2/ -o gpt2-q4.pgpt --to q4 --report gpt2-q4.json\n  \
        pocketgpt-quantize inspect gpt2-q4.pgpt\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    // No argument at all is a question about the program, not a mistake in its use.
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Convert(ConvertArgs),
    Synth(SynthArgs),
    Inspect(InspectArgs),
    Report(ReportArgs),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  \
        pocketgpt-quantize completions bash > ~/.local/share/bash-completion/completions/pocketgpt-quantize")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Convert a checkpoint
#[derive(Debug, Args)]
#[command(after_help = "\
    Encodings: q8 is nearly lossless, 8.25 bits per weight and more; q4 takes 4.25 and more,\n\
    q3 3.25 and more; but wte and lm_head are q8 with q4 and q4 with q3, unless --head says\n\
    otherwise; f16 and f32 are for comparison.\n\n\
    q4, q3 and target sizes are fitted to a text, which takes some minutes for 124 million parameters;\n\
    --method rtn takes seconds and loses about five times as much.\n\n\
    Examples:\n  \
    pocketgpt-quantize convert gpt2/ -o gpt2.pgpt\n  \
    pocketgpt-quantize convert gpt2/model.safetensors -o gpt2.pgpt --to q4 --head q4\n  \
    pocketgpt-quantize convert gpt2/ -o gpt2.pgpt --to q4 --calibrate my-texts.txt\n  \
    pocketgpt-quantize convert gpt2/ -o gpt2.pgpt --target-bpw 5.5\n  \
    pocketgpt-quantize convert finetuned/ -o finetuned.pgpt --tokenizer gpt2/\n  \
    pocketgpt-quantize convert gpt2/ -o gpt2.pgpt --quiet --json | jq .bits_per_weight")]
pub struct ConvertArgs {
    /// Hugging Face folder, or a .safetensors file beside its config.json
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// File to write; one that exists is replaced once the new one is complete
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Encoding of the weight matrices
    #[arg(long, value_name = "ENCODING", default_value = "q8")]
    pub to: EncodingArg,
    /// Encoding of wte and lm_head [default: q8 with --to q4, q4 with --to q3, otherwise that of --to]
    #[arg(long, value_name = "ENCODING")]
    pub head: Option<EncodingArg>,
    /// Choose q3, q4 or q8 for each matrix, so that all of them take at most X bits per weight
    #[arg(long, value_name = "X", conflicts_with_all = ["to", "head"], value_parser = bits)]
    pub target_bpw: Option<f64>,
    /// The same for a file of at most so many bytes
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["to", "head", "target_bpw"])]
    pub target_size: Option<u64>,
    /// How weights are rounded [default: gptq for q4, q3 and with --calibrate, otherwise rtn]
    #[arg(long, value_name = "METHOD")]
    pub method: Option<MethodArg>,
    /// Text to calibrate with, documents separated by <|endoftext|> [default: built-in stories]
    #[arg(long, value_name = "TEXT")]
    pub calibrate: Option<PathBuf>,
    /// Most tokens of the text that are used [default: 131072, above 50 million parameters 65536]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub calibration_tokens: Option<usize>,
    /// Make a file without tokenizer, which takes token ids only
    #[arg(long, conflicts_with = "tokenizer")]
    pub no_tokenizer: bool,
    /// Folder with tokenizer.json, or vocab.json and merges.txt [default: SRC]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    /// Write the report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Threads to work with [default: all CPUs]
    #[arg(short = 't', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Show no progress and no table
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the report as JSON instead of the table
    #[arg(long)]
    pub json: bool,
}

impl ConvertArgs {
    fn has_target(&self) -> bool {
        self.target_bpw.is_some() || self.target_size.is_some()
    }

    pub fn options(&self) -> ConvertOptions {
        let few = |encoding| matches!(encoding, EncodingArg::Q4 | EncodingArg::Q3);
        let few_bits = few(self.to) || self.head.is_some_and(few);
        ConvertOptions {
            to: self.to.into(),
            target: match (self.target_bpw, self.target_size) {
                (Some(bits), _) => Some(Target::BitsPerWeight(bits)),
                (None, Some(bytes)) => Some(Target::FileBytes(bytes)),
                (None, None) => None,
            },
            head: self.head.map(Into::into),
            method: match self.method {
                Some(MethodArg::Rtn) => Method::Rtn,
                // q8 loses next to nothing as it is, and a text is of no use without a tokenizer.
                None if self.calibrate.is_none()
                    && !self.has_target()
                    && (self.no_tokenizer || !few_bits) =>
                {
                    Method::Rtn
                }
                _ => Method::Gptq {
                    text: self
                        .calibrate
                        .clone()
                        .map_or(CalibrationText::BuiltIn, CalibrationText::File),
                    tokens: self.calibration_tokens,
                },
            },
            tokenizer: match &self.tokenizer {
                _ if self.no_tokenizer => TokenizerChoice::Skip,
                Some(folder) => TokenizerChoice::From(folder.clone()),
                None => TokenizerChoice::FromSource,
            },
            threads: self.threads.map(usize::from),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|n| *n > 0);
    number.ok_or_else(|| "expected a whole number from 1 on".into())
}

fn bits(text: &str) -> Result<f64, String> {
    let bits: f64 = text.parse().map_err(|_| "expected a number like 4.5".to_owned())?;
    if (1.0..=32.0).contains(&bits) { Ok(bits) } else { Err("expected 1 to 32".into()) }
}

/// Make a checkpoint of random numbers, to measure speed and memory without a download
#[derive(Debug, Args)]
#[command(after_help = "\
    The same preset, seed and dtype give the same bytes everywhere.\n\n\
    Examples:\n  \
    pocketgpt-quantize synth --preset gpt2 -o /tmp/gpt2-random\n  \
    pocketgpt-quantize synth --preset tiny --seed 7 --dtype f16 -o tiny")]
pub struct SynthArgs {
    /// Size of the model
    #[arg(long)]
    pub preset: PresetArg,
    /// Another seed gives other numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// How numbers are stored
    #[arg(long, default_value = "f32")]
    pub dtype: DtypeArg,
    /// Folder to write; made if it does not exist
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Write into a folder that is not empty
    #[arg(long)]
    pub force: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// Show what a .pgpt file or a checkpoint holds
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    pocketgpt-quantize inspect gpt2.pgpt\n  \
    pocketgpt-quantize inspect gpt2/ --json | jq '.tensors[].dtype'")]
pub struct InspectArgs {
    /// A .pgpt file, a Hugging Face folder or a .safetensors file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tell what a file lost, layer by layer
#[derive(Debug, Args)]
#[command(after_help = "\
    Both files read a text; everything is computed in f32, so that only the weights differ.\n\n\
    Examples:\n  \
    pocketgpt-quantize report gpt2-q4.pgpt --reference gpt2-f32.pgpt\n  \
    pocketgpt-quantize report gpt2-q4.pgpt --reference gpt2-f32.pgpt --text wiki.txt --plot loss.svg")]
pub struct ReportArgs {
    /// A .pgpt file
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
    /// The same checkpoint converted with --to f32
    #[arg(long, value_name = "FILE")]
    pub reference: PathBuf,
    /// Text to read [default: the built-in stories]
    #[arg(long, value_name = "TEXT")]
    pub text: Option<PathBuf>,
    /// Most tokens of the text that are read
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub tokens: usize,
    /// Draw it, as SVG
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EncodingArg {
    Q8,
    Q4,
    Q3,
    F16,
    F32,
}

impl From<EncodingArg> for Encoding {
    fn from(arg: EncodingArg) -> Self {
        match arg {
            EncodingArg::Q8 => Self::Q8,
            EncodingArg::Q4 => Self::Q4,
            EncodingArg::Q3 => Self::Q3,
            EncodingArg::F16 => Self::F16,
            EncodingArg::F32 => Self::F32,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodArg {
    /// Round to nearest, each group of 32 weights for itself
    Rtn,
    /// Fit to a text, errors fed to the weights behind them
    Gptq,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PresetArg {
    Gpt2,
    Gpt2Medium,
    Gpt2Large,
    Gpt2Xl,
    Tiny,
}

impl From<PresetArg> for Preset {
    fn from(arg: PresetArg) -> Self {
        match arg {
            PresetArg::Gpt2 => Self::Gpt2,
            PresetArg::Gpt2Medium => Self::Gpt2Medium,
            PresetArg::Gpt2Large => Self::Gpt2Large,
            PresetArg::Gpt2Xl => Self::Gpt2Xl,
            PresetArg::Tiny => Self::Tiny,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DtypeArg {
    F32,
    F16,
    Bf16,
}

impl From<DtypeArg> for SourceDtype {
    fn from(arg: DtypeArg) -> Self {
        match arg {
            DtypeArg::F32 => Self::F32,
            DtypeArg::F16 => Self::F16,
            DtypeArg::Bf16 => Self::Bf16,
        }
    }
}
