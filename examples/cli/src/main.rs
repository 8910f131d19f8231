//! `pocketgpt`: text from GPT-2 on small CPUs.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`], [`commands`] | the command line, one module per command |
//! | [`model`], [`embedded`], [`engine`] | a weight file, opened and ready to run |
//! | [`input`], [`output`], [`interrupt`] | what comes in, goes out, and stops the work |
//! | [`stop`], [`stream`], [`perplexity`], [`npy`] | parts that commands are made of |
//! | [`machine`], [`units`] | the CPU, and numbers for people |
#![forbid(unsafe_code)]

mod args;
mod commands;
mod embedded;
mod engine;
mod input;
mod interrupt;
mod machine;
mod model;
mod npy;
mod output;
mod perplexity;
mod stop;
mod stream;
mod units;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::commands::Outcome;

/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => commands::generate::run(&args),
        Command::Tokenize(args) => commands::tokenize::run(&args),
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
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}
