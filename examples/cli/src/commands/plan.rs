//! `pocketgpt plan`

use anyhow::Result;
use clap::Args;
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::Serialize;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::context::ContextArgs;
use crate::decoding::{Decoding, DecodingArgs};
use crate::engine::{self, session_options};
use crate::model::Model;
use crate::{output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt plan
  pocketgpt plan -m gpt2.pgpt --kv f16 --threads 4
  pocketgpt plan -m gpt2.pgpt --window 256 --json
  pocketgpt plan -m gpt2.pgpt --num-beams 4 -n 100
  pocketgpt plan -m gpt2.pgpt --penalty-alpha 0.6 --top-k 4
  pocketgpt plan -m gpt2.pgpt --overflow shadow -n 20000

Reads only the file's header and directory. The sum is what generate takes with the same options and
a prompt as long as the context: weights are used where the file is mapped, and nothing is allocated per
token.")]
pub struct PlanArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Most tokens to write
    #[arg(short = 'n', long, value_name = "N", default_value_t = 200)]
    max_new_tokens: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    decoding: DecodingArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    run: RunArgs,
}

/// Bytes that running a model takes.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryPlan {
    strategy: &'static str,
    kv: &'static str,
    window: usize,
    keep: usize,
    overflow: &'static str,
    branches: usize,
    branch_slots: usize,
    batch: usize,
    threads: usize,
    weights_bytes: u64,
    kv_cache_bytes: u64,
    shadow_cache_bytes: u64,
    history_bytes: u64,
    scratch_bytes: u64,
    logits_bytes: u64,
    branch_tables_bytes: u64,
    decoding_bytes: u64,
    total_bytes: u64,
    /// What is written side by side.
    #[serde(skip)]
    side_by_side: Option<String>,
}

impl MemoryPlan {
    /// What `generate` takes with this session and these options, together with the weights.
    pub fn new(
        model: &Model,
        file: &WeightFile<'_>,
        base: &SessionOptions,
        decoding: &Decoding,
    ) -> Result<Self> {
        let config = file.config();
        let max_prompt = config.n_ctx as usize;
        let (options, lines) = decoding.with_options(|options| {
            let session = options.session_options(base, max_prompt);
            (session, Generator::lines(config, options, max_prompt))
        });
        let plan = engine::plan(model, &options)?;
        let weights_bytes = file.bytes().len() as u64;
        let decoding_bytes = (lines? * Line::BYTES) as u64;
        Ok(Self {
            strategy: decoding.strategy(),
            kv: options.kv.name(),
            window: options.window,
            keep: options.keep,
            overflow: options.overflow.name(),
            branches: options.branches,
            branch_slots: options.branch_slots,
            batch: options.batch.min(options.window),
            threads: options.threads,
            weights_bytes,
            kv_cache_bytes: plan.kv_bytes as u64,
            shadow_cache_bytes: plan.shadow_bytes as u64,
            history_bytes: plan.history_bytes as u64,
            scratch_bytes: plan.scratch_bytes as u64,
            logits_bytes: plan.logits_bytes as u64,
            branch_tables_bytes: plan.branch_bytes as u64,
            decoding_bytes,
            total_bytes: weights_bytes + plan.total_bytes() as u64 + decoding_bytes,
            side_by_side: decoding.side_by_side(),
        })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let line = |what: String, n: u64| format!("{what:<50} {n:>13}  {:>10}\n", units::bytes(n));
        let scratch =
            format!("scratch (batch {}, {})", self.batch, units::count(self.threads, "thread"));
        let mut cache = format!("KV cache ({}, {} positions", self.kv, self.window);
        if self.branch_slots > 0 {
            cache += &format!(" and {} beside them", self.branch_slots);
        }
        let mut strategy = format!("decoding ({}", self.strategy);
        if let Some(texts) = &self.side_by_side {
            strategy += &format!(", {texts}");
        }
        let mut lines = vec![
            line("weights (mapped file)".into(), self.weights_bytes),
            line(cache + ")", self.kv_cache_bytes),
        ];
        if self.shadow_cache_bytes > 0 {
            lines.push(line("second cache (shadow)".into(), self.shadow_cache_bytes));
        }
        if self.history_bytes > 0 {
            lines.push(line("tokens of the context".into(), self.history_bytes));
        }
        lines.extend([
            line(scratch, self.scratch_bytes),
            line("logits".into(), self.logits_bytes),
            line(strategy + ")", self.branch_tables_bytes + self.decoding_bytes),
            line("sum".into(), self.total_bytes),
        ]);
        lines.concat()
    }
}

pub fn run(args: &PlanArgs) -> Result<Outcome> {
    args.context.check()?;
    let model = Model::open(&args.model)?;
    let file = model.weights()?;
    engine::kernels(args.run.isa)?;
    let decoding =
        args.decoding.resolve(&model, file.config(), args.max_new_tokens, args.context.overflow)?;
    let base = args.context.apply(session_options(&file, &args.run)?);
    let plan = MemoryPlan::new(&model, &file, &base, &decoding)?;
    if args.json {
        output::json(&plan)?;
    } else {
        output::write(&plan.table())?;
    }
    Ok(Outcome::Done)
}
