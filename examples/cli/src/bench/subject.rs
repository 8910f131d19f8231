//! A model that does the task, and its times.

use std::time::Instant;

use anyhow::Result;
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;

use super::limits::macs_per_second;
use super::{Arithmetic, Limits, Task};
use crate::args::RunArgs;
use crate::engine::Engine;
use crate::interrupt;
use crate::model::{Model, block_encoding, bytes_per_token};

/// A model and how it has done so far.
pub struct Subject<'w> {
    pub model: &'w Model,
    pub engine: Engine<'w>,
    /// What its weights are multiplied with.
    pub arithmetic: Arithmetic,
    pub weight_bytes_per_token: u64,
    /// Opening the file, and getting threads and memory.
    pub load_seconds: f64,
    /// Reading the prompt for the first time, when pages of the file are not mapped yet; only if
    /// it was read at depth 0.
    pub first_prefill_seconds: Option<f64>,
    /// Per depth.
    pub at_depth: Vec<Times>,
}

/// What was measured at one depth; one entry per round.
#[derive(Default)]
pub struct Times {
    pub prefill: Vec<Prefill>,
    pub decode: Vec<Decode>,
}

/// Tokens read together.
pub struct Prefill {
    pub seconds: f64,
    /// Multiply-adds per second that the machine could do just before.
    pub limit: f64,
}

/// Tokens made one after another.
pub struct Decode {
    /// Of each token.
    pub seconds: Vec<f64>,
    /// Bytes per second that the machine could read just before.
    pub limit: f64,
}

impl<'w> Subject<'w> {
    /// `start`: when the model's file began to be opened.
    pub fn new(model: &'w Model, args: &RunArgs, start: Instant) -> Result<Self> {
        let engine = Engine::new(model, args, 1)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let file = model.weights()?;
        let quantized = block_encoding(&file).is_quantized();
        let arithmetic = if quantized { Arithmetic::Int8 } else { Arithmetic::F32 };
        Ok(Self {
            model,
            engine,
            arithmetic,
            weight_bytes_per_token: bytes_per_token(&file),
            load_seconds,
            first_prefill_seconds: None,
            at_depth: Vec::new(),
        })
    }

    /// Does the task for the first time, which brings everything into memory and does not count.
    /// False if the user wants an end.
    pub fn warm_up(&mut self, task: &Task, each: &mut dyn FnMut()) -> Result<bool> {
        let Some(times) = self.work(task, None, each)? else { return Ok(false) };
        if task.depths.first() == Some(&0) {
            self.first_prefill_seconds = Some(times[0].0.seconds);
        }
        self.at_depth = task.depths.iter().map(|_| Times::default()).collect();
        Ok(true)
    }

    /// Does the task once more, measuring the machine's limits in turn. False if the user wants an
    /// end.
    ///
    /// `each` is called after every depth.
    pub fn measure(
        &mut self,
        task: &Task,
        limits: &Limits,
        each: &mut dyn FnMut(),
    ) -> Result<bool> {
        let Some(times) = self.work(task, Some(limits), each)? else { return Ok(false) };
        for (all, (prefill, decode)) in self.at_depth.iter_mut().zip(times) {
            all.prefill.push(prefill);
            all.decode.push(decode);
        }
        Ok(true)
    }

    fn work(
        &mut self,
        task: &Task,
        limits: Option<&Limits>,
        each: &mut dyn FnMut(),
    ) -> Result<Option<Vec<(Prefill, Decode)>>> {
        let (kernels, window) = (*self.engine.model().kernels(), self.engine.options().window);
        let (arithmetic, weight_bytes) = (self.arithmetic, self.weight_bytes_per_token);
        let (mut session, par) = self.engine.session()?;
        let mut times = Vec::with_capacity(task.depths.len());
        for &depth in &task.depths {
            let macs = limits.map(|_| macs_per_second(kernels, par, arithmetic));
            if !go_to(&mut session, &task.ids[..depth], window, par)? {
                return Ok(None);
            }
            let start = Instant::now();
            session.feed(task.prefill_at(depth), par)?;
            let seconds = start.elapsed().as_secs_f64();
            let prefill = Prefill { seconds, limit: macs.unwrap_or_default() };

            if !go_to(&mut session, &task.ids[..depth], window, par)? {
                return Ok(None);
            }
            let bytes =
                limits.map(|limits| limits.read_bytes_per_second(kernels, par, weight_bytes));
            let mut seconds = Vec::with_capacity(task.decode);
            for token in task.decode_at(depth) {
                if interrupt::requested() {
                    return Ok(None);
                }
                let start = Instant::now();
                session.feed(&[*token], par)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            times.push((prefill, Decode { seconds, limit: bytes.unwrap_or_default() }));
            each();
        }
        Ok(Some(times))
    }
}

/// Leaves `before` in the session, and nothing else. False if the user wants an end.
fn go_to(
    session: &mut Session<'_, '_>,
    before: &[u32],
    window: usize,
    par: &dyn Parallel,
) -> Result<bool> {
    // What a window has slid over is gone.
    let kept = if session.position() <= window { session.position() } else { 0 };
    session.truncate(kept.min(before.len()));
    for tokens in before[session.position()..].chunks(CHUNK) {
        if interrupt::requested() {
            return Ok(false);
        }
        session.feed(tokens, par)?;
    }
    Ok(!interrupt::requested())
}

/// Tokens read between two looks at whether the user wants an end.
const CHUNK: usize = 256;
