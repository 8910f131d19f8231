//! The command line. Names of options are those of Hugging Face where it has one.

use std::fmt;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::parallel::MAX_THREADS;
use pocketgpt_runtime::workspace::SessionOptions;

use crate::commands;
use crate::machine::CpuList;

/// Generates text with GPT-2 on small CPUs.
///
/// Without -m the model bundled with the program is used. Files for -m are made by
/// `pocketgpt-quantize convert`.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  pocketgpt generate \"Once upon a time\"
  pocketgpt generate -m gpt2.pgpt --strategy greedy -n 50 \"The capital of France is\"
  pocketgpt interactive
  pocketgpt embed --plot words.svg
  pocketgpt plan -m gpt2.pgpt --kv q8
  pocketgpt bench --json

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text.
    Generate(commands::generate::GenerateArgs),
    /// Write a text in turn with the model.
    Interactive(commands::interactive::InteractiveArgs),
    /// Show the tokens of a text.
    Tokenize(commands::tokenize::TokenizeArgs),
    /// Show texts or words as vectors, and how alike they are.
    Embed(commands::embed::EmbedArgs),
    /// Show which tokens of a text look at which.
    Attention(commands::attention::AttentionArgs),
    /// Tell what a model file holds, and what this machine can do.
    Info(commands::info::InfoArgs),
    /// Tell how much memory a model will take, without loading it.
    Plan(commands::plan::PlanArgs),
    /// Read a whole model file and check everything.
    Verify(commands::verify::VerifyArgs),
    /// Compute what the model expects after given tokens.
    Logits(commands::logits::LogitsArgs),
    /// Measure how well the model predicts a text.
    Perplexity(commands::perplexity::PerplexityArgs),
    /// Measure speed and memory.
    Bench(commands::bench::BenchArgs),
    /// Print a completion script for a shell.
    Completions(commands::completions::CompletionsArgs),
}

/// Which model.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// Model file (.pgpt) [default: the bundled model]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Read the file into memory instead of mapping it: for one that may be changed or shortened
    /// meanwhile, or that lies where reading may fail
    #[arg(long)]
    pub no_mmap: bool,
}

/// How to run it. None of these but --kv, --window and --keep changes the text.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Running")]
pub struct RunArgs {
    /// Threads that share the work [default: one per CPU, at most 8; little cores are left out]
    #[arg(short, long, value_name = "N", value_parser = number(MAX_THREADS))]
    pub threads: Option<usize>,
    /// CPUs to keep the threads on, one each, as in 0-3 or 4,6,7 [default: where the system puts them]
    #[arg(long, value_name = "LIST", value_parser = affinity())]
    pub affinity: Option<CpuList>,
    /// Instructions to use [default: the fastest this CPU has]
    #[arg(long, value_parser = isa())]
    pub isa: Option<Isa>,
    /// How keys and values are kept [default: q8 for q8, q4 and q3 models, f32 for others]
    #[arg(long, value_parser = kv())]
    pub kv: Option<KvType>,
    /// Positions whose keys and values are kept: attention sees the last N, those of --keep among
    /// them [default: the model's whole context]
    #[arg(long, value_name = "N", value_parser = number(usize::MAX))]
    pub window: Option<usize>,
    /// First tokens of the text that stay where they are when the --window slides or the context
    /// begins anew [default: 1]
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Copy the weights into huge pages instead of mapping the file: starts later (about 30 ms per
    /// 100 MB), then writes faster, by a tenth or by half, depending on what the memory went through
    #[arg(long)]
    pub huge_pages: bool,
    /// Most tokens of a prompt that go through the layers together
    #[arg(long, value_name = "N", default_value_t = SessionOptions::DEFAULT_BATCH, value_parser = number(SessionOptions::MAX_BATCH))]
    pub batch: usize,
}

fn affinity() -> impl TypedValueParser<Value = CpuList> {
    clap::builder::StringValueParser::new().try_map(|text| text.parse::<CpuList>())
}

fn isa() -> impl TypedValueParser<Value = Isa> {
    PossibleValuesParser::new(Isa::ALL.map(Isa::name)).try_map(|name| name.parse::<Isa>())
}

fn kv() -> impl TypedValueParser<Value = KvType> {
    let names = [KvType::F32, KvType::F16, KvType::Q8].map(KvType::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<KvType>())
}

/// The command line makes no sense: the program ends as with an error that clap finds.
#[derive(Debug)]
pub struct UsageError {
    kind: ErrorKind,
    message: String,
}

impl UsageError {
    /// Options that exclude each other.
    pub fn conflict(message: String) -> Self {
        Self { kind: ErrorKind::ArgumentConflict, message }
    }

    /// A value that is impossible.
    pub fn value(message: String) -> Self {
        Self { kind: ErrorKind::ValueValidation, message }
    }

    /// Something is missing.
    pub fn missing(message: String) -> Self {
        Self { kind: ErrorKind::MissingRequiredArgument, message }
    }

    /// Tells it, and how to get help, and ends the program.
    pub fn exit(&self) -> ! {
        use clap::CommandFactory;
        Cli::command().error(self.kind, &self.message).exit()
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// A whole number from 1 to `max`.
pub fn number(max: usize) -> impl TypedValueParser<Value = usize> {
    clap::builder::StringValueParser::new().try_map(move |text| match text.parse::<usize>() {
        Ok(n) if (1..=max).contains(&n) => Ok(n),
        _ if max == usize::MAX => Err("expected a whole number from 1 on".to_owned()),
        _ => Err(format!("expected a whole number from 1 to {max}")),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
