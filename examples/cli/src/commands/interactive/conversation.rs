//! One text, written by the user and the model in turn.

use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::sampling::{Candidate, Sampler};
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde::Serialize;

use super::Settings;
use crate::commands::generate::StopReason;
use crate::interrupt;
use crate::model::Model;
use crate::output::ReaderGone;
use crate::stream::TextStream;

/// Tokens that are read before Ctrl-C is looked for again.
const READ_AT_ONCE: usize = 64;

/// What the model wrote.
#[derive(Debug, Serialize)]
pub struct Answer {
    pub text: String,
    ids: Vec<u32>,
    pub stop_reason: StopReason,
    /// Tokens of the context that are in use after it.
    context_tokens: usize,
}

/// Sums over all answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speeds {
    pub prompt_tokens: usize,
    pub prefill_seconds: f64,
    pub new_tokens: usize,
    /// New tokens but the first of each answer, which comes out of the prompt.
    pub decoded_tokens: usize,
    pub decode_seconds: f64,
}

/// The text so far, and the session that has read it.
pub struct Conversation<'s, 'm, 'w> {
    session: Session<'m, 'w>,
    par: &'s dyn Parallel,
    tokenizer: TokenizerView<'s>,
    /// The whole text; the session has read the first [`Session::position`] tokens.
    text: Vec<u32>,
    /// The token that begins a text and ends it.
    begin: Option<u32>,
    answers: u64,
    speeds: Speeds,
    candidates: Vec<Candidate>,
    values: Vec<f32>,
}

impl<'s, 'm, 'w> Conversation<'s, 'm, 'w> {
    pub fn new(model: &'s Model, session: Session<'m, 'w>, par: &'s dyn Parallel) -> Result<Self> {
        let config = *session.model().config();
        let vocab_size = config.vocab_size as usize;
        Ok(Self {
            session,
            par,
            tokenizer: model.tokenizer()?,
            text: Vec::with_capacity(config.n_ctx as usize),
            begin: config.bos_token_id.or(config.eos_token_id),
            answers: 0,
            speeds: Speeds::default(),
            candidates: vec![Candidate::default(); vocab_size],
            values: vec![0.0; vocab_size],
        })
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.session.model().config().n_ctx as usize
    }

    /// Tokens of the text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// How fast it went.
    pub fn speeds(&self) -> Speeds {
        self.speeds
    }

    /// Whether there is a text that has not ended.
    pub fn goes_on(&self) -> bool {
        let eos = self.session.model().config().eos_token_id;
        self.text.last().is_some_and(|&last| Some(last) != eos)
    }

    /// Forgets the text.
    pub fn reset(&mut self) {
        self.session.truncate(0);
        self.text.clear();
    }

    /// Adds to the text; changes nothing if there is no room.
    pub fn add(&mut self, text: &str) -> Result<()> {
        self.add_tokens(&self.tokenizer.encode_to_vec(text))
    }

    /// Leaves the text to the model, which needs a token to go on from.
    pub fn go_on(&mut self) -> Result<()> {
        match (self.text.is_empty(), self.begin) {
            (false, _) => self.add_tokens(&[]),
            (true, Some(begin)) => self.add_tokens(&[begin]),
            (true, None) => bail!("the model names no token to begin a text with; give some text"),
        }
    }

    fn add_tokens(&mut self, ids: &[u32]) -> Result<()> {
        let (n_ctx, used) = (self.n_ctx(), self.text.len());
        // The last token of an answer may be behind the last position: it cannot be read.
        if used + ids.len() > n_ctx {
            let (added, left) = (ids.len(), n_ctx.saturating_sub(used));
            bail!(
                "the line has {added} tokens, {left} of the context's {n_ctx} are left; \
                 /reset begins a new text"
            );
        }
        self.text.extend(ids);
        Ok(())
    }

    /// Lets the model go on; `print` gets the text as it comes.
    pub fn answer(
        &mut self,
        settings: &Settings,
        model: &Model,
        mut print: impl FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        let (strategy, penalty) = settings.strategy(model)?;
        // Each answer draws its own numbers, which depend on nothing but the seed and its place.
        let seed = settings.sampling.seed.unwrap_or_default().wrapping_add(self.answers);
        let mut candidates = std::mem::take(&mut self.candidates);
        let mut values = std::mem::take(&mut self.values);
        let mut sampler = Sampler::new(strategy, penalty, seed, &mut candidates, &mut values)
            .map_err(|error| anyhow!("{error}"))?;
        let start = self.text.len();
        let mut stream = TextStream::new(self.tokenizer, &settings.stop);
        let mut text = String::new();
        let ended = self.write(settings, &mut sampler, &mut |token| {
            let piece = stream.push(token);
            text.push_str(&piece);
            print(&piece)?;
            Ok(stream.stopped())
        });
        (self.candidates, self.values) = (candidates, values);
        let stop_reason = ended.map_err(|error| {
            if error.is::<ReaderGone>() {
                return error;
            }
            anyhow!("{}: {error}; check the file with pocketgpt verify", model.name())
        })?;
        let rest = stream.finish();
        text.push_str(&rest);
        print(&rest)?;
        self.answers += 1;
        let eos = self.session.model().config().eos_token_id;
        let mut ids = self.text[start..].to_vec();
        if stop_reason == StopReason::EndOfText {
            ids.retain(|&id| Some(id) != eos);
        }
        Ok(Answer { text, ids, stop_reason, context_tokens: self.text.len() })
    }

    /// Reads what the session has not read, then writes token after token; `push` says whether a
    /// stop text is complete.
    fn write(
        &mut self,
        settings: &Settings,
        sampler: &mut Sampler<'_>,
        push: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<StopReason> {
        if settings.max_new_tokens == 0 {
            return Ok(StopReason::MaxNewTokens);
        }
        let Self { session, par, text, speeds, .. } = self;
        let config = *session.model().config();
        let kernels = *session.model().kernels();
        let eos = config.eos_token_id.filter(|_| !settings.ignore_eos);

        let start = Instant::now();
        let mut token = loop {
            let unread = &text[session.position()..];
            let part = &unread[..unread.len().min(READ_AT_ONCE)];
            speeds.prompt_tokens += part.len();
            let logits = session.feed(part, *par)?;
            if part.len() == unread.len() {
                break sampler.next(&kernels, logits, text)?;
            }
            if interrupt::requested() {
                speeds.prefill_seconds += start.elapsed().as_secs_f64();
                return Ok(StopReason::Interrupted);
            }
        };
        speeds.prefill_seconds += start.elapsed().as_secs_f64();

        let start = Instant::now();
        let before = text.len();
        let reason = loop {
            text.push(token);
            if Some(token) == eos {
                break StopReason::EndOfText;
            }
            if push(token)? {
                break StopReason::StopText;
            }
            if interrupt::requested() {
                break StopReason::Interrupted;
            }
            if text.len() - before >= settings.max_new_tokens {
                break StopReason::MaxNewTokens;
            }
            if session.remaining() == 0 {
                break StopReason::ContextFull;
            }
            token = sampler.next(&kernels, session.feed(&[token], *par)?, text)?;
        };
        speeds.decode_seconds += start.elapsed().as_secs_f64();
        speeds.new_tokens += text.len() - before;
        speeds.decoded_tokens += text.len() - before - 1;
        Ok(reason)
    }
}
