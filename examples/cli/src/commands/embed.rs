//! `pocketgpt embed`

use std::fmt::Write;
use std::io::{self, BufRead};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use pocketgpt_runtime::model::Gpt2;
use serde::Serialize;

use super::Outcome;
use super::embed_plot::{PlotArgs, draw};
use super::tokenize::visible;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::{Engine, kernels};
use crate::model::Model;
use crate::npy::NpyWriter;
use crate::vectors::{Pool, cosine, hidden_states, token_embeddings, unit};
use crate::words::GROUPS;
use crate::{outfile, output, terminal};

/// Most vectors that are compared with each other.
const MAX_VECTORS: usize = 2000;
/// Neighbours told where there is no room for all.
const NEIGHBOURS: usize = 5;
/// Width of a label, and of a number in the table.
const LABEL_WIDTH: usize = 14;
const NUMBER_WIDTH: usize = 7;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt embed \" king\" \" queen\" \" wolf\"
  pocketgpt embed --plot words.svg
  pocketgpt embed --layer 6 --pool last \"The king slept.\" \"The queen slept.\" \"A ship sailed.\"
  pocketgpt embed --add-prefix-space - < words.txt --npy words.npy
  pocketgpt embed --layer 3 --pool none --json \"Once upon a time\"

Without --layer a token's vector is its row of wte, the same in every text. Layer 0 is wte + wpe,
layer L what block L leaves behind, counted from 1; the last layer is behind ln_f, as in
transformers. A word inside of a text has a space before it, which belongs to its token. The file
of --npy has shape [texts, n_embd], with --pool none [tokens, n_embd], f32.")]
pub struct EmbedArgs {
    /// Texts or words; `-` reads them from standard input, one per line [default: some words]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Hidden states of this layer [default: the token embeddings, wte]
    #[arg(long, value_name = "L")]
    layer: Option<usize>,
    /// How the vectors of a text's tokens become one
    #[arg(long, value_enum, default_value_t = Pool::Mean)]
    pool: Pool,
    /// Put a space before each text
    #[arg(long)]
    add_prefix_space: bool,
    /// Write the vectors to this file (NumPy)
    #[arg(long, value_name = "FILE")]
    npy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plot: PlotArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    source: &'static str,
    layer: Option<usize>,
    pool: &'static str,
    shape: [usize; 2],
    texts: Vec<Text>,
    vectors: Vec<Vector>,
    cosine_similarity: Vec<Vec<f32>>,
    npy: Option<String>,
    plot: Option<String>,
}

#[derive(Debug, Serialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    /// Texts of a group have the same colour.
    #[serde(skip)]
    group: usize,
}

/// One for each text, or one for each token.
#[derive(Debug, Serialize)]
pub struct Vector {
    /// Place of its text in `texts`.
    text: usize,
    /// Which of the text's tokens it is, if it is not the whole text.
    token: Option<usize>,
    embedding: Vec<f32>,
    /// Its name in tables and pictures.
    #[serde(skip)]
    pub label: String,
    /// Its colour in pictures.
    #[serde(skip)]
    #[cfg_attr(not(feature = "plot"), expect(dead_code, reason = "there are no pictures"))]
    pub group: usize,
}

impl Vector {
    /// The vector at length 1.
    pub fn unit(&self) -> Vec<f64> {
        unit(&self.embedding)
    }
}

pub fn run(args: &EmbedArgs) -> Result<Outcome> {
    let model = Model::open(&args.model)?;
    let texts = texts(args, &model)?;
    check_count(args, &texts)?;
    for path in args.npy.iter().map(PathBuf::as_path).chain(args.plot.path()) {
        outfile::check_beside(path, args.model.model.as_deref())?;
    }
    let vectors = vectors(args, &model, &texts)?;
    let n_embd = vectors[0].embedding.len();
    let shape = [vectors.len(), n_embd];
    if let Some(path) = &args.npy {
        let mut npy = NpyWriter::create(path, &shape)?;
        vectors.iter().try_for_each(|vector| npy.write(&vector.embedding))?;
        npy.finish()?;
        output::note(format_args!("{}: f32 {shape:?}", path.display()));
    }
    draw(&args.plot, args.layer, &vectors)?;

    let name = |path: &std::path::Path| path.display().to_string();
    let report = Report {
        model: model.name().into(),
        source: if args.layer.is_some() { "hidden_states" } else { "wte" },
        layer: args.layer,
        pool: args.pool.name(),
        shape,
        cosine_similarity: cosines(&vectors),
        texts,
        vectors,
        npy: args.npy.as_deref().map(name),
        plot: args.plot.path().map(name),
    };
    if args.json {
        output::json(&report)?;
    } else if report.npy.is_none() && report.plot.is_none() {
        output::write(&table(&report))?;
    }
    Ok(Outcome::Done)
}

/// What to look at: what the user names, or the words that everybody tries.
fn texts(args: &EmbedArgs, model: &Model) -> Result<Vec<Text>> {
    let tokenizer = model.tokenizer()?;
    let config = *model.weights()?.config();
    let mut texts: Vec<(String, usize)> = Vec::new();
    for text in &args.texts {
        match text.as_str() {
            "-" => {
                for line in io::stdin().lock().lines() {
                    let line = line.map_err(|error| {
                        anyhow!("standard input: {error}; give texts in UTF-8, one per line")
                    })?;
                    texts.extend((!line.is_empty()).then_some((line, 0)));
                }
            }
            "" => bail!("a text is empty; give one with at least one character"),
            text => texts.push((text.into(), 0)),
        }
    }
    if texts.is_empty() && !args.texts.is_empty() {
        bail!("standard input: there is no text in it; give some, one per line");
    }
    let default = args.texts.is_empty();
    if default {
        for (group, words) in GROUPS.iter().enumerate() {
            texts.extend(words.iter().map(|word| (word.to_string(), group)));
        }
    }
    let space = if args.add_prefix_space || default { " " } else { "" };
    let texts = texts.into_iter().map(|(text, group)| {
        let text = format!("{space}{text}");
        let ids = tokenizer.encode_to_vec(&text);
        let (found, fit) = (ids.len(), config.n_ctx as usize);
        if args.layer.is_some() && found > fit {
            bail!("{}: a text has {found} tokens, {fit} fit; shorten it", model.name());
        }
        Ok(Text { text, ids, group })
    });
    texts.collect()
}

fn check_count(args: &EmbedArgs, texts: &[Text]) -> Result<()> {
    let count = match args.pool {
        Pool::None => texts.iter().map(|text| text.ids.len()).sum(),
        _ => texts.len(),
    };
    if count > MAX_VECTORS {
        bail!(
            "{count} vectors: at most {MAX_VECTORS} are compared with each other; give fewer texts"
        );
    }
    Ok(())
}

fn vectors(args: &EmbedArgs, model: &Model, texts: &[Text]) -> Result<Vec<Vector>> {
    let config = *model.weights()?.config();
    let n_embd = config.n_embd as usize;
    let Some(layer) = args.layer else {
        let gpt2 = Gpt2::new(model.weights()?, kernels(args.run.isa)?);
        let pooled = texts.iter().map(|text| {
            let rows = token_embeddings(&gpt2, &text.ids);
            args.pool.apply(&rows, n_embd)
        });
        return label(args, model, texts, pooled.collect(), n_embd);
    };
    let last = config.n_layer as usize;
    if layer > last {
        bail!("--layer {layer}: {} has the layers 0 to {last}; use one of these", model.name());
    }
    let mut engine = Engine::new(model, &args.run, 1)?;
    let bar = output::progress_bar(texts.len(), "texts");
    let (mut session, par) = engine.session()?;
    let mut pooled = Vec::with_capacity(texts.len());
    for text in texts {
        let rows = hidden_states(&mut session, par, &text.ids, layer)?;
        pooled.push(args.pool.apply(&rows, n_embd));
        bar.inc(1);
    }
    bar.finish_and_clear();
    label(args, model, texts, pooled, n_embd)
}

/// Cuts what pooling left into vectors, and says what each stands for.
fn label(
    args: &EmbedArgs,
    model: &Model,
    texts: &[Text],
    pooled: Vec<Vec<f32>>,
    n_embd: usize,
) -> Result<Vec<Vector>> {
    let tokenizer = model.tokenizer()?;
    let mut vectors = Vec::new();
    for (number, (text, rows)) in texts.iter().zip(pooled).enumerate() {
        if rows.iter().any(|x| !x.is_finite()) {
            bail!("{}: a number is not finite; check the file with pocketgpt verify", model.name());
        }
        for (row, embedding) in rows.chunks_exact(n_embd).enumerate() {
            let (token, label, group) = match args.pool {
                Pool::None => {
                    let bytes = tokenizer.token_bytes(text.ids[row]).unwrap_or_default();
                    (Some(row), visible(bytes), number)
                }
                _ => (None, text.text.trim().to_owned(), text.group),
            };
            let embedding = embedding.to_vec();
            vectors.push(Vector { text: number, token, embedding, label, group });
        }
    }
    Ok(vectors)
}

fn cosines(vectors: &[Vector]) -> Vec<Vec<f32>> {
    let units: Vec<Vec<f64>> = vectors.iter().map(Vector::unit).collect();
    let row = |a: &Vec<f64>| units.iter().map(|b| cosine(a, b) as f32).collect();
    units.iter().map(row).collect()
}

/// All cosines if a line has room for them, else the nearest neighbours.
fn table(report: &Report) -> String {
    let Report { vectors, cosine_similarity: cosines, .. } = report;
    let label = |i: usize| terminal::fitted(&vectors[i].label, LABEL_WIDTH);
    let mut out = String::new();
    if LABEL_WIDTH + NUMBER_WIDTH * vectors.len() <= terminal::width() {
        out.push_str(&terminal::fitted("cosine", LABEL_WIDTH));
        for vector in vectors {
            let label = terminal::fitted(&vector.label, NUMBER_WIDTH - 1);
            // Writing to a string cannot fail.
            let _ = write!(out, " {label}");
        }
        out.push('\n');
        for (i, row) in cosines.iter().enumerate() {
            out.push_str(&label(i));
            for cosine in row {
                let _ = write!(out, "{cosine:NUMBER_WIDTH$.3}");
            }
            out.push('\n');
        }
        return out;
    }
    let _ = writeln!(out, "{} nearest, by cosine", terminal::fitted("text", LABEL_WIDTH));
    for (i, row) in cosines.iter().enumerate() {
        let mut others: Vec<usize> = (0..row.len()).filter(|&j| j != i).collect();
        others.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
        let named = others.into_iter().take(NEIGHBOURS);
        let named: Vec<String> =
            named.map(|j| format!("{} {:.3}", vectors[j].label, row[j])).collect();
        let _ = writeln!(out, "{} {}", label(i), named.join(", "));
    }
    out
}
