//! One text, written by the user and the model in turn.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::decoding::{DecodingOptions, Distribution, Stage, StopTexts, Strategy};
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde::Serialize;

use super::Settings;
use crate::commands::generate::StopReason;
use crate::interrupt;
use crate::model::Model;
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
}

impl<'s, 'm, 'w> Conversation<'s, 'm, 'w> {
    pub fn new(model: &'s Model, session: Session<'m, 'w>, par: &'s dyn Parallel) -> Result<Self> {
        let config = *session.model().config();
        Ok(Self {
            session,
            par,
            tokenizer: model.tokenizer()?,
            text: Vec::with_capacity(config.n_ctx as usize),
            begin: config.bos_token_id.or(config.eos_token_id),
            answers: 0,
            speeds: Speeds::default(),
        })
    }

    /// Tokens that fit.
    pub fn n_ctx(&self) -> usize {
        self.session.model().config().n_ctx as usize
    }

    /// Tokens of the context that are in use: all of the text, until there is more of it than fits.
    pub fn in_context(&self) -> usize {
        let unread = self.text.len().saturating_sub(self.session.fed());
        (self.session.position() + unread).min(self.n_ctx().max(self.session.position()))
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
        if used + ids.len() > n_ctx && self.session.overflow() == Overflow::Stop {
            let (added, left) = (ids.len(), n_ctx.saturating_sub(used));
            bail!(
                "the line has {added} tokens, {left} of the context's {n_ctx} are left; \
                 /reset begins a new text; begun with --overflow shadow it would go on"
            );
        }
        self.text.extend(ids);
        Ok(())
    }

    /// Lets the model go on; `print` gets the text as it comes, or when it is complete where the
    /// strategy knows it no sooner.
    pub fn answer(
        &mut self,
        settings: &Settings,
        model: &Model,
        mut print: impl FnMut(&str) -> Result<()>,
    ) -> Result<Answer> {
        let decoding = settings.resolve(model)?;
        let stops: Vec<&str> = settings.stop.iter().map(String::as_str).collect();
        let stop_texts = StopTexts::new(self.tokenizer, &stops);
        let seed = settings.decoding.seed.unwrap_or_default().wrapping_add(self.answers);
        let start = self.text.len();
        let mut pen = Pen::new(TextStream::new(self.tokenizer, &settings.stop), &mut print);
        let ended = decoding.with_options(|options| {
            let options = DecodingOptions {
                eos_token_id: options.eos_token_id.filter(|_| !settings.ignore_eos),
                stop: (!stops.is_empty()).then_some(&stop_texts),
                // Each answer draws its own numbers, which depend on nothing but the seed and its
                // place.
                seed,
                ..*options
            };
            self.write(&options, &mut pen)
        });
        let text = pen.finish()?;
        let stop_reason = ended.map_err(|error| {
            anyhow!("{}: {error}; check the file with pocketgpt verify", model.name())
        })?;
        self.answers += 1;
        let ids = self.text[start..].to_vec();
        if stop_reason == StopReason::EndOfText {
            // It is a part of what the model goes on from, not of the answer.
            self.text.extend(self.session.model().config().eos_token_id);
        }
        Ok(Answer { text, ids, stop_reason, context_tokens: self.in_context() })
    }

    /// Reads what the session has not read, then writes token after token.
    fn write(
        &mut self,
        options: &DecodingOptions<'_>,
        pen: &mut Pen<'_, '_>,
    ) -> Result<StopReason> {
        if options.max_new_tokens == 0 {
            return Ok(StopReason::MaxNewTokens);
        }
        let start = Instant::now();
        let read = self.session.fed().min(self.text.len() - 1);
        if read < self.session.fed() {
            // The last token must be read anew to go on from it.
            self.session.truncate(read);
        }
        let interrupted = match options.strategy {
            // It reads all of the text anew.
            Strategy::Contrastive(_) => false,
            _ => self.read_all_but_last()?,
        };
        self.speeds.prompt_tokens += self.session.fed() - read;
        if interrupted {
            self.speeds.prefill_seconds += start.elapsed().as_secs_f64();
            return Ok(StopReason::Interrupted);
        }

        let config = *self.session.model().config();
        let mut memory = vec![Line::ZERO; Generator::lines(&config, options, self.text.len())?];
        let mut generator = Generator::new(&config, options, self.text.len(), &mut memory)?;
        generator.run(&mut self.session, self.par, &self.text, pen)?;
        let end = Instant::now();
        let sequence = generator.sequences().next().ok_or_else(|| anyhow!("no text was found"))?;
        if matches!(options.strategy, Strategy::Beam(_)) {
            sequence.tokens.iter().for_each(|&token| pen.put(token));
        }
        let prompt_read = pen.prompt_read.unwrap_or(end);
        self.speeds.prompt_tokens += 1;
        self.speeds.prefill_seconds += (prompt_read - start).as_secs_f64();
        self.speeds.decode_seconds += (end - prompt_read).as_secs_f64();
        self.speeds.new_tokens += sequence.tokens.len();
        self.speeds.decoded_tokens += sequence.tokens.len().saturating_sub(1);
        self.text.extend(sequence.tokens);
        Ok(sequence.stop_reason.into())
    }

    /// Leaves the last token to the generator; true if the user wants an end.
    fn read_all_but_last(&mut self) -> Result<bool> {
        let before_last = self.text.len() - 1;
        while self.session.fed() < before_last {
            if interrupt::requested() {
                return Ok(true);
            }
            let unread = &self.text[self.session.fed()..before_last];
            // What does not fit need not be read: the session knows which of it.
            let fits = unread.len() <= self.n_ctx();
            let read = if fits { unread.len().min(READ_AT_ONCE) } else { unread.len() };
            self.session.feed(&unread[..read], self.par)?;
        }
        Ok(false)
    }
}

/// Takes the tokens of an answer, and prints and keeps its text.
struct Pen<'a, 'p> {
    stream: TextStream<'a>,
    text: String,
    print: &'p mut dyn FnMut(&str) -> Result<()>,
    error: Option<anyhow::Error>,
    prompt_read: Option<Instant>,
}

impl<'a, 'p> Pen<'a, 'p> {
    fn new(stream: TextStream<'a>, print: &'p mut dyn FnMut(&str) -> Result<()>) -> Self {
        Self { stream, text: String::new(), print, error: None, prompt_read: None }
    }

    fn put(&mut self, token: u32) {
        let piece = self.stream.push(token);
        self.put_text(&piece);
    }

    fn put_text(&mut self, piece: &str) {
        self.text.push_str(piece);
        if let Err(error) = (self.print)(piece) {
            self.error.get_or_insert(error);
        }
    }

    /// Ends the text and returns all of it.
    fn finish(mut self) -> Result<String> {
        let rest = self.stream.finish();
        self.put_text(&rest);
        self.error.map_or(Ok(self.text), Err)
    }
}

impl Observer for Pen<'_, '_> {
    fn token(&mut self, _sequence: usize, token: u32) -> ControlFlow<()> {
        self.put(token);
        if self.error.is_some() || self.stream.stopped() || interrupt::requested() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn step(&mut self) -> ControlFlow<()> {
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn stage(&mut self, _sequence: usize, _stage: Stage, _left: Distribution<'_>) {
        self.prompt_read.get_or_insert_with(Instant::now);
    }
}
