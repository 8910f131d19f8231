//! `pocketgpt bench`

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use indicatif::ProgressBar;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs, number};
use crate::bench::{
    Arithmetic, Limits, Machine, Measured, Ratio, Report, Subject, Task, Wishes, float_twin,
    float_twin_bytes, pauses, table,
};
use crate::context::ContextArgs;
use crate::machine::{self, Readings, Sensors};
use crate::model::{Model, copied_by};
use crate::plot::{self, PlotPath};
use crate::{engine, interrupt, outfile, output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt bench
  pocketgpt bench -m gpt2-q4.pgpt --threads 4
  pocketgpt bench -m gpt2-q4.pgpt --baseline gpt2-q8.pgpt
  pocketgpt bench -m gpt2-q4.pgpt --plot speed.svg
  pocketgpt bench --overflow shadow --no-baseline
  pocketgpt bench -p 256 -n 64 --depth 0,256 --no-baseline --json

Tokens are random, from a fixed seed. Numbers are medians over the repetitions, after one that does
not count. The time to the first token is that of opening the model and reading a prompt of -p tokens.

Limits are measured in turn with the model, on the same threads and instructions: how fast as many
bytes can be read as the weights of a token have, which bounds making tokens, and how many
multiply-adds a second there are, which bounds reading a prompt. `of limit` is the share that the
model reaches (--json: roofline_fraction).

With --overflow refill or shadow the time of each token past the context is measured as well, up to
where the context has begun anew twice: the longest one is the pause.

The baseline is measured in turn as well. Without --baseline it is the same model in f32, made in
memory if it takes at most half of what is free; its speed is that of the file that
`pocketgpt-quantize convert CHECKPOINT --to f32 -o FILE` makes, as that depends on shapes alone.")]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens read together, fewer where the context ends before [default: 512, or the whole context]
    #[arg(short = 'p', long, value_name = "N", value_parser = number(usize::MAX))]
    prefill: Option<usize>,
    /// Tokens made one after another [default: 128, with --plot 32, or the whole context]
    #[arg(short = 'n', long, value_name = "N", value_parser = number(usize::MAX))]
    decode: Option<usize>,
    /// Tokens in the cache when reading or making begins [default: 0, with --plot eight depths]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    depth: Option<Vec<usize>>,
    /// How often to measure
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = number(10_000))]
    repeat: usize,
    /// Compare with this model file [default: the same model in f32]
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Compare with nothing
    #[arg(long, conflicts_with = "baseline")]
    no_baseline: bool,
    /// Draw tokens per second by depth, and their limit (.svg or .png)
    #[arg(long, value_name = "FILE", value_parser = plot::parse_path)]
    plot: Option<PlotPath>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    run: RunArgs,
}

pub fn run(args: &BenchArgs) -> Result<Outcome> {
    args.context.check()?;
    let start = Instant::now();
    let model = Model::open_to_run(&args.model, &args.run)?;
    let subject = Subject::new(&model, &args.run, start)?;
    let start = Instant::now();
    let copied = copied_by(&args.model, &args.run);
    let file = args.baseline.as_deref().map(|path| Model::load(path, copied)).transpose()?;
    let mut baseline =
        file.as_ref().map(|model| Subject::new(model, &args.run, start)).transpose()?;
    let task = task(args, &subject, baseline.as_ref())?;
    // What is out of range is told before anything is measured.
    engine::plan(&model, &args.context.apply(*subject.engine.options()))?;
    let with_twin = baseline.is_none() && wants_twin(args, &subject)?;
    if let Some(path) = &args.plot {
        outfile::check(path.path())?;
    }
    interrupt::catch();

    let count = 1 + usize::from(baseline.is_some() || with_twin);
    let steps = (1 + args.repeat) * count * task.depths.len();
    let bar = output::progress_bar(steps, "measurements");
    let step = &mut || bar.inc(1);

    let mut subjects = vec![subject];
    if !subjects[0].warm_up(&task, step)? {
        return Ok(stopped(&bar));
    }
    // Before anything else takes memory that the model does not need.
    let peak_rss_bytes = machine::peak_rss_bytes();

    let twin = with_twin.then(|| float_twin(&model)).transpose()?;
    if let Some(twin) = &twin {
        baseline = Some(Subject::new(twin, &args.run, Instant::now())?);
    }
    if let Some(mut baseline) = baseline {
        if !baseline.warm_up(&task, step)? {
            return Ok(stopped(&bar));
        }
        subjects.push(baseline);
    }
    let (mut limits, sensors, mut readings) = (Limits::new()?, Sensors::new(), Readings::default());
    for _ in 0..args.repeat {
        let engine = &subjects[0].engine;
        limits.sample(*engine.model().kernels(), engine.pool());
        for subject in &mut subjects {
            if !subject.measure(&task, &limits, step)? {
                return Ok(stopped(&bar));
            }
            sensors.read(&mut readings);
        }
    }
    let pauses = pauses(&model, &args.run, &args.context, args.repeat)?;
    if interrupt::requested() {
        return Ok(stopped(&bar));
    }
    bar.finish_and_clear();

    let machine = Machine::new(&subjects[0], &mut limits, args.repeat, peak_rss_bytes, readings);
    let mut results = subjects.iter().map(|subject| Measured::new(subject, &task, &limits));
    let result = results.next().expect("there is at least one model")?;
    let baseline = results.next().transpose()?;
    let ratio = baseline.as_ref().map(|baseline| Ratio::new(&result, baseline));
    let report = Report { machine, result, baseline, ratio, pauses };
    if let Some(path) = &args.plot {
        draw(path, &report)?;
        output::note(format_args!("{}: tokens per second by depth", path.path().display()));
    }
    if args.json {
        output::json(&report)?;
    } else {
        output::write(&table(&report))?;
    }
    Ok(Outcome::Done)
}

/// What all models have to do, so that it fits each.
fn task(args: &BenchArgs, subject: &Subject<'_>, baseline: Option<&Subject<'_>>) -> Result<Task> {
    let config = |subject: &Subject<'_>| *subject.engine.model().config();
    let (mut n_ctx, mut vocab_size) = (config(subject).n_ctx, config(subject).vocab_size);
    if let Some(config) = baseline.map(config) {
        (n_ctx, vocab_size) = (n_ctx.min(config.n_ctx), vocab_size.min(config.vocab_size));
    }
    let wishes = Wishes {
        prefill: args.prefill,
        decode: args.decode,
        depths: args.depth.as_deref(),
        curve: args.plot.is_some(),
    };
    Task::new(n_ctx as usize, vocab_size, &wishes)
}

/// Whether the model is to be compared with itself in f32.
fn wants_twin(args: &BenchArgs, subject: &Subject<'_>) -> Result<bool> {
    if args.no_baseline || subject.arithmetic == Arithmetic::F32 {
        return Ok(false);
    }
    let needed = float_twin_bytes(&subject.model.weights()?);
    let Some(free) = machine::available_bytes().filter(|&free| needed > free / 2) else {
        return Ok(true);
    };
    output::note(format_args!(
        "no comparison with f32: it would take {} of memory, and {} are free",
        units::bytes(needed),
        units::bytes(free),
    ));
    Ok(false)
}

fn stopped(bar: &ProgressBar) -> Outcome {
    bar.finish_and_clear();
    output::note("stopped before the end of the measurement: no result");
    Outcome::Interrupted
}

#[cfg(feature = "plot")]
use crate::bench::draw;

/// Without pictures there is nothing to draw: [`plot::parse_path`] has refused.
#[cfg(not(feature = "plot"))]
fn draw(_: &PlotPath, _: &Report) -> Result<()> {
    Ok(())
}
