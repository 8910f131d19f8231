//! The program `pocketgpt-quantize`. Results go to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod bar;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};
use pocketgpt_quantize::synth::{SynthOptions, synthesize};
use pocketgpt_quantize::writer::check_place;
use pocketgpt_quantize::{ConvertError, convert, inspect};
use serde::Serialize;

use args::{Cli, Command, ConvertArgs, InspectArgs, SynthArgs};
use bar::Bar;

/// What shells give a program that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // Usage errors leave here, with exit code 2.
    let cli = Cli::parse();
    let cancelled = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&cancelled);
    // Where no handler can be set, an interrupt leaves the temporary file behind: no reason to fail.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let result = match &cli.command {
        Command::Convert(args) => run_convert(args, cancelled),
        Command::Synth(args) => run_synth(args, cancelled),
        Command::Inspect(args) => run_inspect(args),
        Command::Completions { shell } => print_with(|out| {
            clap_complete::generate(*shell, &mut Cli::command(), "pocketgpt-quantize", out);
            Ok(())
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ConvertError::Cancelled) => {
            eprintln!("error: interrupted");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_convert(args: &ConvertArgs, cancelled: Arc<AtomicBool>) -> Result<(), ConvertError> {
    args.report.as_deref().map_or(Ok(()), check_place)?;
    let mut bar = Bar::new(args.quiet, cancelled);
    let report = convert(&args.source, &args.output, &args.options(), &mut bar)?;
    if let Some(path) = &args.report {
        let error = |source| ConvertError::Io { action: "write", path: path.clone(), source };
        std::fs::write(path, json(&report) + "\n").map_err(error)?;
    }
    match (args.json, args.quiet) {
        (true, _) => print(&json(&report)),
        (false, true) => Ok(()),
        (false, false) => print(&report),
    }
}

fn run_synth(args: &SynthArgs, cancelled: Arc<AtomicBool>) -> Result<(), ConvertError> {
    let options = SynthOptions {
        preset: args.preset.into(),
        seed: args.seed,
        dtype: args.dtype.into(),
        force: args.force,
    };
    synthesize(&args.output, &options, &mut Bar::new(args.quiet, cancelled))
}

fn run_inspect(args: &InspectArgs) -> Result<(), ConvertError> {
    let inspection = inspect(&args.path)?;
    if args.json { print(&json(&inspection)) } else { print(&inspection) }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("text keys and finite numbers")
}

fn print(text: &impl Display) -> Result<(), ConvertError> {
    print_with(|out| writeln!(out, "{text}"))
}

/// Writes to stdout at once; a reader that has seen enough is no error.
fn print_with(make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), ConvertError> {
    let mut bytes = Vec::new();
    let mut out = io::stdout().lock();
    match make(&mut bytes).and_then(|()| out.write_all(&bytes)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ConvertError::Io {
            action: "write",
            path: Path::new("stdout").into(),
            source: error,
        }),
        _ => Ok(()),
    }
}
