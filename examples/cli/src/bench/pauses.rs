//! How evenly tokens come where a text goes on past the context.

use std::time::Instant;

use anyhow::Result;
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::workspace::SessionOptions;
use serde::Serialize;

use super::task::random_ids;
use crate::args::RunArgs;
use crate::context::ContextArgs;
use crate::engine::Engine;
use crate::model::Model;
use crate::{interrupt, units};

/// How often the context begins anew in a round.
const RESTARTS: usize = 2;

/// What was measured. The time of a token is the shortest of the rounds: what the machine does besides
/// now and then is not a pause of the text, and what the token itself takes is in every round.
#[derive(Debug, Serialize)]
pub struct Pauses {
    pub overflow: &'static str,
    pub keep: usize,
    pub tail: usize,
    /// Tokens made one after another.
    pub tokens: usize,
    pub restarts: usize,
    pub p50_seconds: f64,
    pub longest_seconds: f64,
    pub longest_over_p50: f64,
    pub tokens_per_second: f64,
}

/// Makes tokens until the context has begun anew some times, `repeat` times over and once before.
/// Nothing if the text ends with the context, or the user wants an end.
pub fn pauses(
    model: &Model,
    args: &RunArgs,
    context: &ContextArgs,
    repeat: usize,
) -> Result<Option<Pauses>> {
    if context.overflow == Overflow::Stop {
        return Ok(None);
    }
    let mut engine = Engine::with(model, args, |base| context.apply(base))?;
    let SessionOptions { keep, tail, .. } = *engine.options();
    let n_ctx = engine.n_ctx();
    let tail = tail.unwrap_or((n_ctx - keep) / 2);
    let vocab_size = engine.model().config().vocab_size;
    let (mut session, par) = engine.session()?;
    let before = keep + tail;
    let count = RESTARTS * (n_ctx - before) + 1;
    let ids = random_ids(before + count, vocab_size);
    let mut times = vec![f64::INFINITY; count];
    for round in 0..=repeat {
        session.truncate(0);
        session.feed(&ids[..before], par)?;
        for (token, time) in ids[before..].iter().zip(&mut times) {
            if interrupt::requested() {
                return Ok(None);
            }
            let start = Instant::now();
            session.feed(&[*token], par)?;
            if round > 0 {
                *time = start.elapsed().as_secs_f64().min(*time);
            }
        }
    }
    let sum: f64 = times.iter().sum();
    let longest_seconds = times.iter().fold(0.0, |max: f64, &time| max.max(time));
    let p50_seconds = units::median(&mut times);
    Ok(Some(Pauses {
        overflow: context.overflow.name(),
        keep,
        tail,
        tokens: count,
        restarts: RESTARTS,
        p50_seconds,
        longest_seconds,
        longest_over_p50: longest_seconds / p50_seconds,
        tokens_per_second: count as f64 / sum,
    }))
}
