//! `pocketgpt plan`

use anyhow::{Result, anyhow};
use clap::Args;
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::workspace::{self, SessionOptions};
use serde::Serialize;

use super::Outcome;
use crate::args::{ModelArgs, RunArgs};
use crate::engine::{self, session_options};
use crate::model::Model;
use crate::{output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt plan
  pocketgpt plan -m gpt2.pgpt --kv f16 --threads 4
  pocketgpt plan -m gpt2.pgpt --window 256 --json

Reads only the file's header and directory. The sum is what running takes: weights are used where
the file is mapped, and nothing is allocated per token.")]
pub struct PlanArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Bytes that running a model takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MemoryPlan {
    kv: &'static str,
    window: usize,
    batch: usize,
    threads: usize,
    weights_bytes: u64,
    kv_cache_bytes: u64,
    scratch_bytes: u64,
    logits_bytes: u64,
    total_bytes: u64,
}

impl MemoryPlan {
    /// What a session with these options takes, together with the weights.
    pub fn new(model: &Model, file: &WeightFile<'_>, options: &SessionOptions) -> Result<Self> {
        let plan = workspace::Plan::new(file.config(), options)
            .map_err(|error| anyhow!("{}: {error}", model.name()))?;
        let weights_bytes = file.bytes().len() as u64;
        Ok(Self {
            kv: options.kv.name(),
            window: options.window,
            batch: options.batch.min(options.window),
            threads: options.threads,
            weights_bytes,
            kv_cache_bytes: plan.kv_bytes as u64,
            scratch_bytes: plan.scratch_bytes as u64,
            logits_bytes: plan.logits_bytes as u64,
            total_bytes: weights_bytes + plan.total_bytes() as u64,
        })
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let line = |what: String, n: u64| format!("{what:<38} {n:>13}  {:>10}\n", units::bytes(n));
        let scratch =
            format!("scratch (batch {}, {})", self.batch, units::count(self.threads, "thread"));
        [
            line("weights (mapped file)".into(), self.weights_bytes),
            line(format!("KV cache ({}, {} positions)", self.kv, self.window), self.kv_cache_bytes),
            line(scratch, self.scratch_bytes),
            line("logits".into(), self.logits_bytes),
            line("sum".into(), self.total_bytes),
        ]
        .concat()
    }
}

pub fn run(args: &PlanArgs) -> Result<Outcome> {
    let model = Model::open(&args.model)?;
    let file = model.weights()?;
    engine::kernels(args.run.isa)?;
    let plan = MemoryPlan::new(&model, &file, &session_options(&file, &args.run)?)?;
    if args.json {
        output::json(&plan)?;
    } else {
        output::write(&plan.table())?;
    }
    Ok(Outcome::Done)
}
