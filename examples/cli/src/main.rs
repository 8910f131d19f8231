//! `pocketgpt`: text from GPT-2 on small CPUs.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`], [`commands`], [`decoding`] | the command line, one module per command |
//! | [`model`], [`embedded`], [`engine`] | a weight file, opened and ready to run |
//! | [`input`], [`output`], [`interrupt`] | what comes in, goes out, and stops the work |
//! | [`inside`], [`vectors`], [`words`] | what a model makes of a text on the way |
//! | [`terminal`], [`textmap`], [`plot`], `projection` | showing it: characters, pictures, maps |
//! | [`mod@bench`], [`stop`], [`stream`], [`perplexity`] | parts that commands are made of |
//! | [`outfile`], [`npy`] | files that commands write |
//! | [`machine`], [`units`] | the CPU, its sensors, and numbers for people |
#![forbid(unsafe_code)]

mod args;
mod bench;
mod commands;
mod context;
mod decoding;
mod divergence;
mod embedded;
mod engine;
mod input;
mod inside;
mod interrupt;
mod machine;
mod model;
mod npy;
mod outfile;
mod output;
mod perplexity;
mod plot;
#[cfg(feature = "plot")]
mod projection;
mod stop;
mod stream;
mod terminal;
mod textmap;
mod units;
mod vectors;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::commands::Outcome;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Interactive(args) => commands::interactive::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
        Command::Embed(args) => commands::embed::run(&args),
        Command::Attention(args) => commands::attention::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Verify(args) => commands::verify::run(&args),
        Command::Logits(args) => commands::logits::run(&args),
        Command::Perplexity(args) => commands::perplexity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
    };
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Interrupted) => ExitCode::from(INTERRUPTED),
        // Whoever read our output has read enough.
        Err(error) if error.is::<output::ReaderGone>() => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(usage) = error.downcast_ref::<args::UsageError>() {
                usage.exit();
            }
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
