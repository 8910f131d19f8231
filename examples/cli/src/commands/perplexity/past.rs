//! How well tokens past the context are predicted, by each way to get there.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::Serialize;

use super::{LOGIT_ROWS, PerplexityArgs};
use crate::args::{RunArgs, UsageError, number};
use crate::commands::Outcome;
use crate::context::ContextArgs;
use crate::engine::Engine;
use crate::model::Model;
use crate::perplexity::{TokenStream, first_past, score_anew, score_past};
use crate::plot::{self, PlotPath};
use crate::{interrupt, outfile, output, units};

/// More than any context has.
const ALL: &str = "4294967295";

#[derive(Debug, Args)]
#[command(next_help_heading = "Long texts")]
pub struct PastArgs {
    #[command(flatten)]
    context: ContextArgs,
    /// Score so many tokens past the context [default: all]
    #[arg(long, value_name = "N", value_parser = number(usize::MAX))]
    limit: Option<usize>,
    /// Predict each token from a context read anew for it as well, of the last N tokens [default: as
    /// many as fit], to compare with; slow
    #[arg(long, value_name = "N", value_parser = number(usize::MAX), num_args = 0..=1, require_equals = true, default_missing_value = ALL)]
    anew: Option<usize>,
    /// Compare several values of --keep
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "keep")]
    compare_keep: Vec<usize>,
    /// Compare several values of --tail
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "tail")]
    compare_tail: Vec<usize>,
    /// Draw perplexity by --compare-tail, a line for each --compare-keep (.svg or .png)
    #[arg(long, value_name = "FILE", value_parser = plot::parse_path, requires = "compare_tail")]
    plot: Option<PlotPath>,
}

impl PastArgs {
    /// Whether the text is to go on past the context.
    pub fn is_wanted(&self) -> bool {
        self.context.overflow != Overflow::Stop
    }

    /// # Errors
    /// If options make no sense together.
    pub fn check(&self) -> Result<()> {
        self.context.check()?;
        let flags = [
            (self.limit.is_some(), "--limit"),
            (self.anew.is_some(), "--anew"),
            (!self.compare_keep.is_empty(), "--compare-keep"),
            (!self.compare_tail.is_empty(), "--compare-tail"),
        ];
        if let Some((_, flag)) = flags.into_iter().find(|(given, _)| *given && !self.is_wanted()) {
            let text = format!("{flag} works with --overflow refill or shadow, not with stop");
            return Err(UsageError::conflict(text).into());
        }
        Ok(())
    }

    /// What to compare: pairs of --keep and --tail.
    fn pairs(&self, run: &RunArgs) -> Vec<(Option<usize>, Option<usize>)> {
        let or = |list: &[usize], one: Option<usize>| match list {
            [] => vec![one],
            list => list.iter().copied().map(Some).collect(),
        };
        let keeps = or(&self.compare_keep, run.keep);
        let tails = or(&self.compare_tail, self.context.tail);
        keeps.iter().flat_map(|&keep| tails.iter().map(move |&tail| (keep, tail))).collect()
    }
}

/// One way to go on.
#[derive(Debug, Serialize)]
struct Way {
    overflow: &'static str,
    window: usize,
    keep: usize,
    tail: usize,
    perplexity: f64,
    nats_per_token: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    above_anew: Option<Above>,
    tokens_per_second: Option<f64>,
    seconds: f64,
}

/// How much worse it is than reading the context anew for each token.
#[derive(Debug, Serialize)]
struct Above {
    perplexity_ratio: f64,
    /// Of the tokens' differences, and the standard error of their mean.
    nats_per_token: f64,
    nats_standard_error: f64,
}

#[derive(Debug, Serialize)]
struct Anew {
    context_tokens: usize,
    perplexity: f64,
    nats_per_token: f64,
    tokens_per_second: Option<f64>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    text: String,
    n_ctx: usize,
    first_scored_token: usize,
    scored_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    anew: Option<Anew>,
    ways: Vec<Way>,
    isa: &'static str,
    threads: usize,
    kv: &'static str,
}

pub fn run(args: &PerplexityArgs, model: &Model, stream: &TokenStream) -> Result<Outcome> {
    let (past, text_name) = (&args.past, args.text.display());
    let n_ctx = model.weights()?.config().n_ctx as usize;
    let first = first_past(n_ctx);
    let all = stream.tokens.len().saturating_sub(first);
    if all == 0 {
        bail!(
            "{text_name}: the text has {} tokens, which fit the model's {n_ctx} positions; give a \
             longer one",
            stream.tokens.len()
        );
    }
    let scored = past.limit.map_or(all, |limit| limit.min(all));
    let tokens = &stream.tokens[..first + scored];
    let pairs = past.pairs(&args.run);
    // What is out of range is told before anything is computed.
    for &(keep, tail) in &pairs {
        engine(args, model, keep, tail)?;
    }
    if let Some(path) = &past.plot {
        outfile::check(path.path())?;
    }
    interrupt::catch();

    let length = past.anew.map(|length| length.min(n_ctx));
    let work = pairs.len() * tokens.len() + scored * length.unwrap_or(0);
    let bar = output::progress_bar(work, "tokens");
    let progress = |read: usize| {
        bar.inc(read as u64);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let stopped = || {
        bar.finish_and_clear();
        output::note(format_args!("stopped before the end of {text_name}: no result"));
        Ok(Outcome::Interrupted)
    };
    let checked = |scores: Result<Option<Vec<f64>>>| {
        let scores = scores.map_err(|error| {
            anyhow!("{}: {error}; check the file with pocketgpt verify", model.name())
        })?;
        match scores {
            Some(scores) if !scores.iter().all(|nats| nats.is_finite()) => {
                bail!("{}: a logit is not a finite number", model.name())
            }
            scores => Ok(scores),
        }
    };

    let mut anew = None;
    if let Some(length) = length {
        let mut engine =
            Engine::new(model, &RunArgs { window: None, keep: None, ..args.run.clone() }, 1)?;
        let (mut session, par) = engine.session()?;
        let start = Instant::now();
        let scores = checked(score_anew(&mut session, par, tokens, first, length, progress))?;
        let Some(scores) = scores else { return stopped() };
        anew = Some((scores, start.elapsed().as_secs_f64()));
    }
    let mut ways = Vec::new();
    let mut about = None;
    for (keep, tail) in pairs {
        let mut engine = engine(args, model, keep, tail)?;
        let options = *engine.options();
        about = Some((engine.isa().name(), options));
        let (mut session, par) = engine.session()?;
        let start = Instant::now();
        let scores =
            checked(score_past(&mut session, par, tokens, first, options.batch, progress))?;
        let Some(scores) = scores else { return stopped() };
        let seconds = start.elapsed().as_secs_f64();
        let anew = anew.as_ref().map(|(scores, _)| &scores[..]);
        ways.push(Way::new(&options, n_ctx, &scores, anew, tokens.len(), seconds));
    }
    bar.finish_and_clear();

    let (isa, options) = about.ok_or_else(|| anyhow!("there is nothing to compare"))?;
    let report = Report {
        model: model.name().into(),
        text: text_name.to_string(),
        n_ctx,
        first_scored_token: first,
        scored_tokens: scored,
        anew: length.zip(anew).map(|(context_tokens, (scores, seconds))| Anew {
            context_tokens,
            perplexity: mean(&scores).exp(),
            nats_per_token: mean(&scores),
            tokens_per_second: units::per_second(scored, seconds),
            seconds,
        }),
        ways,
        isa,
        threads: options.threads,
        kv: options.kv.name(),
    };
    if let Some(path) = &past.plot {
        draw(path, &report)?;
        output::note(format_args!("{}: perplexity by tail", path.path().display()));
    }
    if args.json {
        output::json(&report)?;
    } else {
        output::write(&table(&report))?;
    }
    Ok(Outcome::Done)
}

fn engine<'w>(
    args: &PerplexityArgs,
    model: &'w Model,
    keep: Option<usize>,
    tail: Option<usize>,
) -> Result<Engine<'w>> {
    let run = RunArgs { keep, ..args.run.clone() };
    let context = ContextArgs { tail, ..args.past.context };
    Engine::with(model, &run, |base| SessionOptions {
        logit_rows: LOGIT_ROWS,
        ..context.apply(base)
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Way {
    fn new(
        options: &SessionOptions,
        n_ctx: usize,
        scores: &[f64],
        anew: Option<&[f64]>,
        read: usize,
        seconds: f64,
    ) -> Self {
        let nats_per_token = mean(scores);
        Self {
            overflow: options.overflow.name(),
            window: options.window,
            keep: options.keep,
            tail: options.tail.unwrap_or((n_ctx - options.keep) / 2),
            perplexity: nats_per_token.exp(),
            nats_per_token,
            above_anew: anew.map(|anew| Above::new(scores, anew)),
            tokens_per_second: units::per_second(read, seconds),
            seconds,
        }
    }
}

impl Above {
    fn new(scores: &[f64], anew: &[f64]) -> Self {
        let differences: Vec<f64> = scores.iter().zip(anew).map(|(a, b)| a - b).collect();
        let (n, mean) = (differences.len() as f64, mean(&differences));
        let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
        Self {
            perplexity_ratio: mean.exp(),
            nats_per_token: mean,
            nats_standard_error: (squares / (n - 1.0).max(1.0) / n).sqrt(),
        }
    }
}

fn table(report: &Report) -> String {
    let mut out = format!(
        "{}, {} tokens from token {} on; {} positions, {}, {}, kv {}\n{:<28} {:>10}",
        report.model,
        report.scored_tokens,
        report.first_scored_token,
        report.n_ctx,
        report.isa,
        units::count(report.threads, "thread"),
        report.kv,
        "",
        "perplexity"
    );
    if report.anew.is_some() {
        out += "          above anew";
    }
    out += "    tokens/s\n";
    // Writing to a string cannot fail.
    let mut line = |name: &str, perplexity: f64, above: Option<&Above>, speed| {
        let _ = write!(out, "{name:<28} {perplexity:>10.4}");
        if report.anew.is_some() {
            let above = above.map_or_else(String::new, |above| {
                let percent = |nats: f64| 100.0 * (nats.exp() - 1.0);
                let (more, error) = (above.nats_per_token, above.nats_standard_error);
                format!("{:+.2} % ± {:.2}", percent(more), 100.0 * error)
            });
            let _ = write!(out, "  {above:>18}");
        }
        let _ = writeln!(out, "  {:>10}", units::speed(speed));
    };
    for way in &report.ways {
        let window =
            if way.window < report.n_ctx { format!(" window {}", way.window) } else { "".into() };
        let name = format!("{}{window} keep {} tail {}", way.overflow, way.keep, way.tail);
        line(&name, way.perplexity, way.above_anew.as_ref(), way.tokens_per_second);
    }
    if let Some(anew) = &report.anew {
        let name = format!("anew, {} tokens", anew.context_tokens);
        line(&name, anew.perplexity, None, anew.tokens_per_second);
    }
    out
}

#[cfg(feature = "plot")]
fn draw(path: &PlotPath, report: &Report) -> Result<()> {
    use crate::plot::Plot;
    use crate::plot::lines::{Line, Lines};

    let mut lines: Vec<Line> = Vec::new();
    for way in &report.ways {
        let point = (way.tail as f64, way.perplexity);
        let name = format!("keep {}", way.keep);
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => {
                let group = lines.len();
                lines.push(Line { name, points: vec![point], is_limit: false, group });
            }
        }
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    if let Some(anew) = &report.anew {
        let tails = report.ways.iter().map(|way| way.tail as f64);
        let ends = [tails.clone().fold(f64::INFINITY, f64::min), tails.fold(0.0, f64::max)];
        let name = format!("{} tokens read anew for each", anew.context_tokens);
        let points = ends.map(|tail| (tail, anew.perplexity)).to_vec();
        lines.push(Line { name, points, is_limit: true, group: lines.len() });
    }
    let way = report.ways.first().ok_or_else(|| anyhow!("there is nothing to draw"))?;
    let window =
        if way.window < report.n_ctx { format!(", window {}", way.window) } else { "".into() };
    // Of a path the file's name is enough.
    let model = report.model.rsplit(['/', '\\']).next().unwrap_or_default();
    let title = format!(
        "{model}, {} positions{window}, {}: tokens past the context",
        report.n_ctx, way.overflow
    );
    Plot::create(path)?.draw(&Lines {
        title: &title,
        x_label: "tokens behind the kept ones when the context begins anew (tail)",
        y_label: "perplexity",
        from_zero: false,
        lines: &lines,
    })
}

/// Without pictures there is nothing to draw: [`plot::parse_path`] has refused.
#[cfg(not(feature = "plot"))]
fn draw(_: &PlotPath, _: &Report) -> Result<()> {
    Ok(())
}
