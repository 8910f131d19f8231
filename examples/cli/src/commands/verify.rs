//! `pocketgpt verify`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::Outcome;
use crate::args::ModelArgs;
use crate::model::Model;
use crate::{output, units};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  pocketgpt verify
  pocketgpt verify gpt2.pgpt && scp gpt2.pgpt pi:

Every command checks header and directory; this one reads every byte.")]
pub struct VerifyArgs {
    /// Model file (.pgpt) [default: the bundled model]
    #[arg(value_name = "FILE", conflicts_with = "model")]
    file: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    ok: bool,
    file_bytes: u64,
    tensors: usize,
    parameters: u64,
}

pub fn run(args: &VerifyArgs) -> Result<Outcome> {
    let path = args.file.clone().or_else(|| args.model.model.clone());
    let model = Model::open(&ModelArgs { model: path, ..args.model.clone() })?;
    let file = model.weights()?;
    file.verify().map_err(|error| model.format_error(&error))?;
    let report = Report {
        model: model.name().into(),
        ok: true,
        file_bytes: file.bytes().len() as u64,
        tensors: file.tensors().len(),
        parameters: file.config().parameter_count(),
    };
    if args.json {
        output::json(&report)?;
    } else {
        output::write(&format!(
            "{}: ok, {}, {} tensors, {} parameters\n",
            report.model,
            units::bytes(report.file_bytes),
            report.tensors,
            report.parameters
        ))?;
    }
    Ok(Outcome::Done)
}
