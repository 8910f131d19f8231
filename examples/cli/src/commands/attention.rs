//! `pocketgpt attention`

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use pocketgpt_runtime::config::Gpt2Config;
use serde::Serialize;

use super::Outcome;
use super::tokenize::quoted;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::Engine;
use crate::inside::AttentionTap;
use crate::model::Model;
use crate::npy::NpyWriter;
use crate::plot::{self, PlotPath};
use crate::terminal::ColorArgs;
use crate::textmap::{Shading, heat_map, legend, room};
use crate::{input, outfile, output, terminal};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt attention \"The king loved his daughter because she was kind\"
  pocketgpt attention --layer 2 --head 1 --plot head.svg \"The king and the queen\"
  pocketgpt attention --layer 0 --npy weights.npy --json < story.txt

Row i shows how much of each token's value token i takes: its weights, which are together 1. Layers
and heads are counted from 0. The file of --npy has shape [tokens, tokens], f32.")]
pub struct AttentionArgs {
    /// Text; `-` or none reads it from standard input
    text: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Which layer [default: the last one]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// Which head [default: the mean of all heads of the layer]
    #[arg(long, value_name = "H")]
    head: Option<usize>,
    /// Draw the heat map (.svg or .png)
    #[arg(long, value_name = "FILE", value_parser = plot::parse_path)]
    plot: Option<PlotPath>,
    /// Write the weights to this file (NumPy)
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    color: ColorArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    layer: usize,
    /// Null for the mean of all.
    head: Option<usize>,
    tokens: Vec<Token>,
    weights: Vec<Vec<f32>>,
    npy: Option<String>,
    plot: Option<String>,
}

#[derive(Debug, Serialize)]
struct Token {
    id: u32,
    text: String,
}

pub fn run(args: &AttentionArgs) -> Result<Outcome> {
    let model = Model::open(&args.model)?;
    let layer = layer(args, &model)?;
    let text = input::text_or_stdin(args.text.as_deref(), "text")?;
    if text.is_empty() {
        bail!("the text is empty; give one with at least one character");
    }
    let ids = model.prompt_ids(&text)?;
    let plot_path = args.plot.as_ref().map(PlotPath::path);
    for path in args.npy.as_deref().into_iter().chain(plot_path) {
        outfile::check_beside(path, args.model.model.as_deref())?;
    }

    let weights = weights(args, &model, layer, &ids)?;
    if let Some(path) = &args.npy {
        let mut npy = NpyWriter::create(path, &[ids.len(), ids.len()])?;
        npy.write(&weights)?;
        npy.finish()?;
        output::note(format_args!("{}: f32 {:?}", path.display(), [ids.len(), ids.len()]));
    }
    let title = title(args, &model, layer)?;
    let tokenizer = model.tokenizer()?;
    let bytes: Vec<&[u8]> =
        ids.iter().map(|&id| tokenizer.token_bytes(id).unwrap_or_default()).collect();
    if let Some(path) = &args.plot {
        draw(path, &title, &bytes, &weights)?;
    }

    if args.json {
        let tokens = ids.iter().zip(&bytes).map(|(&id, bytes)| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            Token { id, text }
        });
        let name = |path: &Path| path.display().to_string();
        output::json(&Report {
            model: model.name().into(),
            layer,
            head: args.head,
            tokens: tokens.collect(),
            weights: weights.chunks_exact(ids.len()).map(<[f32]>::to_vec).collect(),
            npy: args.npy.as_deref().map(name),
            plot: plot_path.map(name),
        })?;
    } else if args.npy.is_none() && args.plot.is_none() {
        show(args.color, &title, &bytes, &weights)?;
    }
    Ok(Outcome::Done)
}

/// The layer, after layer and head are known to exist.
fn layer(args: &AttentionArgs, model: &Model) -> Result<usize> {
    let Gpt2Config { n_layer, n_head, .. } = *model.weights()?.config();
    let check = |option: &str, value: usize, count: u32, what: &str| {
        if value >= count as usize {
            let (name, last) = (model.name(), count - 1);
            bail!("{option} {value}: {name} has the {what} 0 to {last}; use one of these");
        }
        Ok(value)
    };
    if let Some(head) = args.head {
        check("--head", head, n_head, "heads")?;
    }
    check("--layer", args.layer.unwrap_or(n_layer as usize - 1), n_layer, "layers")
}

fn weights(args: &AttentionArgs, model: &Model, layer: usize, ids: &[u32]) -> Result<Vec<f32>> {
    let mut engine = Engine::new(model, &args.run, 1)?;
    let heads = engine.model().config().n_head as usize;
    let window = engine.options().window;
    let (mut session, par) = engine.session()?;
    let mut tap = AttentionTap::new(layer, args.head, heads, ids.len(), window);
    session.feed_tapped(ids, par, &mut tap).map_err(|error| anyhow!("{error}"))?;
    if tap.weights.iter().any(|weight| !weight.is_finite()) {
        bail!("{}: a weight is not finite; check the file with pocketgpt verify", model.name());
    }
    Ok(tap.weights)
}

fn title(args: &AttentionArgs, model: &Model, layer: usize) -> Result<String> {
    let heads = model.weights()?.config().n_head;
    Ok(match args.head {
        Some(head) => format!("layer {layer}, head {head}"),
        None => format!("layer {layer}, mean of {heads} heads"),
    })
}

#[cfg(feature = "plot")]
fn draw(path: &PlotPath, title: &str, tokens: &[&[u8]], weights: &[f32]) -> Result<()> {
    use super::tokenize::visible;
    use crate::plot::{Plot, heatmap::HeatMap};

    let labels: Vec<String> = tokens.iter().map(|bytes| visible(bytes)).collect();
    let title = format!("attention, {title}");
    Plot::create(path)?.draw(&HeatMap { title: &title, labels: &labels, weights })?;
    let n = tokens.len();
    output::note(format_args!("{}: {title}, {n} x {n}", path.path().display()));
    Ok(())
}

/// Without pictures there is nothing to draw: [`plot::parse_path`] has refused.
#[cfg(not(feature = "plot"))]
fn draw(_: &PlotPath, _: &str, _: &[&[u8]], _: &[f32]) -> Result<()> {
    Ok(())
}

fn show(color: ColorArgs, title: &str, tokens: &[&[u8]], weights: &[f32]) -> Result<()> {
    let (shading, labels): (_, Vec<String>) = if color.on() {
        (Shading::Colours, tokens.iter().map(|bytes| quoted(bytes)).collect())
    } else if terminal::unicode() {
        (Shading::Blocks, tokens.iter().map(|bytes| quoted(bytes)).collect())
    } else {
        let ascii = |bytes: &&[u8]| format!("\"{}\"", bytes.escape_ascii());
        (Shading::Digits, tokens.iter().map(ascii).collect())
    };
    let first = tokens.len().saturating_sub(room(terminal::width(), shading));
    let map = heat_map(&labels, weights, first, shading);
    output::write(&format!("{title}\n{map}{}\n", legend(shading)))?;
    if first > 0 {
        let count = tokens.len();
        output::note(format_args!(
            "the last {} of {count} tokens, as many as a line has room for; --plot shows all",
            count - first
        ));
    }
    Ok(())
}
