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
use pocketgpt_quantize::source::read_sample;
use pocketgpt_quantize::synth::{SynthOptions, synthesize};
use pocketgpt_quantize::writer::{check_place, same_file, write_whole};
use pocketgpt_quantize::{BUILT_IN_TEXT, ConvertError, compare, convert, inspect};
use serde::Serialize;

use args::{Cli, Command, ConvertArgs, InspectArgs, ReportArgs, SynthArgs};
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
        Command::Report(args) => run_report(args, cancelled),
        Command::Completions { shell } => print_with(|out| {
            clap_complete::generate(*shell, &mut Cli::command(), "pocketgpt-quantize", out);
            Ok(())
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ConvertError::Cancelled) => {
            tell("interrupted");
            ExitCode::from(EXIT_INTERRUPTED)
        }
        Err(error) => {
            tell(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The one line that an error is: a name in a checkpoint may have control characters in it. That
/// nobody may be there to read it is no reason to fail otherwise.
fn tell(error: &str) {
    // Nor does it turn the direction of writing.
    let order =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line: String = error.chars().map(|c| if order(c) { ' ' } else { c }).collect();
    let _ = writeln!(io::stderr(), "error: {line}");
}

/// A report must not replace the model, or a file of the checkpoint.
fn check_report(report: &Path, args: &ConvertArgs) -> Result<(), ConvertError> {
    check_place(report)?;
    let folder = if args.source.is_dir() { Some(&*args.source) } else { args.source.parent() };
    let beside = folder.is_some_and(|folder| {
        report.exists() && report.file_name().is_some_and(|n| same_file(report, &folder.join(n)))
    });
    let cause = if same_file(report, &args.output) {
        "the model is written there; give the report another name"
    } else if beside {
        "this is a file of the checkpoint; give the report another name"
    } else {
        return Ok(());
    };
    Err(ConvertError::Output { path: report.into(), cause })
}

fn run_convert(args: &ConvertArgs, cancelled: Arc<AtomicBool>) -> Result<(), ConvertError> {
    args.report.as_deref().map_or(Ok(()), |report| check_report(report, args))?;
    let mut bar = Bar::new(args.quiet, cancelled);
    let report = convert(&args.source, &args.output, &args.options(), &mut bar)?;
    if let Some(path) = &args.report {
        write_whole(path, (json(&report) + "\n").as_bytes())?;
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

fn run_report(args: &ReportArgs, cancelled: Arc<AtomicBool>) -> Result<(), ConvertError> {
    args.plot.as_deref().map_or(Ok(()), check_place)?;
    let text = match &args.text {
        None => BUILT_IN_TEXT.into(),
        Some(path) => read_sample(path)?,
    };
    let mut bar = Bar::counting(args.quiet, cancelled);
    let found = compare(&args.path, &args.reference, &text, args.tokens, &mut bar)?;
    if let Some(path) = &args.plot {
        write_whole(path, found.svg().as_bytes())?;
    }
    if args.json { print(&json(&found)) } else { print(&found) }
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
