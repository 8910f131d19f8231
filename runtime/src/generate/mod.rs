//! The token loops: a prompt, then token after token, with any strategy.

mod beam;
mod contrastive;
mod error;
mod observer;
mod sampled;
mod single;
mod text;

pub use error::GenerateError;
pub use observer::Observer;

use crate::config::Gpt2Config;
use crate::decoding::{
    BeamLimits, BeamScorer, Candidate, ContrastiveScorer, DecodingError, DecodingOptions, Sampler,
    Sequence, StopReason, Strategy,
};
use crate::memory::{Arena, Line};
use crate::overflow::Overflow;
use crate::parallel::Parallel;
use crate::session::Session;
use crate::workspace::SessionOptions;

/// Writes texts as [`DecodingOptions`] say, in the caller's memory.
#[derive(Debug)]
pub struct Generator<'m, 'o> {
    options: DecodingOptions<'o>,
    max_prompt: usize,
    /// Most tokens of a text, prompt and new ones.
    max_text: usize,
    memory: Memory<'m>,
    results: Results,
}

/// What the strategies keep.
#[derive(Debug)]
enum Memory<'m> {
    /// Greedy and sampled.
    Sampled {
        /// `[sequences][max_text]`
        texts: &'m mut [u32],
        scores: &'m mut [f32],
        candidates: &'m mut [Candidate],
    },
    Beam {
        scorer: BeamScorer<'m>,
        weights: &'m mut [f32],
        seen: &'m mut [Candidate],
    },
    Contrastive {
        scorer: ContrastiveScorer<'m>,
        text: &'m mut [u32],
        scores: &'m mut [f32],
        seen: &'m mut [Candidate],
        /// `[n_embd]`
        hidden: &'m mut [f32],
    },
}

/// Which parts of the memory are texts.
#[derive(Debug)]
struct Results {
    prompt: usize,
    count: usize,
    /// Of each text its length, prompt included, and why it ended; of beams the scorer knows.
    ends: [(usize, StopReason); SessionOptions::MAX_BRANCHES],
}

/// Lengths of the arrays, in elements.
struct Sizes {
    max_text: usize,
    max_new: usize,
    vocab: usize,
    n_embd: usize,
    /// For the repetition penalty: as long as the text, or none.
    seen: usize,
}

impl Sizes {
    fn new(config: &Gpt2Config, options: &DecodingOptions<'_>, max_prompt: usize) -> Self {
        let most = match options.overflow {
            // The last token needs no position: nothing follows it.
            Overflow::Stop => config.n_ctx as usize + 1,
            _ => usize::MAX,
        };
        let max_text = max_prompt.saturating_add(options.max_new_tokens).min(most);
        Self {
            max_text,
            max_new: options.max_new_tokens.min(most).max(1),
            vocab: config.vocab_size as usize,
            n_embd: config.n_embd as usize,
            seen: if options.repetition_penalty == 1.0 { 0 } else { max_text },
        }
    }

    fn beam_limits(&self) -> BeamLimits {
        BeamLimits { text: self.max_text, new: self.max_new }
    }
}

impl<'m, 'o> Generator<'m, 'o> {
    /// Lines of memory that [`Generator::new`] takes for prompts of at most `max_prompt` tokens.
    ///
    /// The session comes on top: see [`DecodingOptions::session_options`].
    ///
    /// # Errors
    /// If an option is outside its range, or makes no sense beside the others.
    pub fn lines(
        config: &Gpt2Config,
        options: &DecodingOptions<'_>,
        max_prompt: usize,
    ) -> Result<usize, DecodingError> {
        options.validate()?;
        let sizes = Sizes::new(config, options, max_prompt);
        let line_count = |bytes: usize| Line::count_for(bytes);
        let (floats, seen) = (line_count(4 * sizes.vocab), line_count(8 * sizes.seen));
        Ok(match options.strategy {
            Strategy::Greedy | Strategy::Sample(_) => {
                let (scores, candidates) = Sampler::needed(options, sizes.vocab, sizes.max_text);
                line_count(4 * options.num_return_sequences * sizes.max_text)
                    + line_count(4 * scores)
                    + line_count(8 * candidates)
            }
            Strategy::Beam(beam) => {
                BeamScorer::lines(beam.num_beams, sizes.beam_limits()) + floats + seen
            }
            Strategy::Contrastive(contrastive) => {
                ContrastiveScorer::lines(contrastive.top_k, sizes.n_embd, sizes.max_text)?
                    + line_count(4 * sizes.max_text)
                    + floats
                    + seen
                    + line_count(4 * sizes.n_embd)
            }
        })
    }

    /// A generator in the caller's memory.
    ///
    /// # Errors
    /// As [`Generator::lines`], or if there is less memory than that.
    pub fn new(
        config: &Gpt2Config,
        options: &DecodingOptions<'o>,
        max_prompt: usize,
        memory: &'m mut [Line],
    ) -> Result<Self, DecodingError> {
        let needed = Self::lines(config, options, max_prompt)?;
        if memory.len() < needed {
            let (needed, given) = (needed * Line::BYTES, memory.len() * Line::BYTES);
            return Err(DecodingError::Memory { needed, given });
        }
        let sizes = Sizes::new(config, options, max_prompt);
        let mut arena = Arena::new(memory);
        let memory = match options.strategy {
            Strategy::Greedy | Strategy::Sample(_) => {
                let (scores, candidates) = Sampler::needed(options, sizes.vocab, sizes.max_text);
                Memory::Sampled {
                    texts: arena.take(options.num_return_sequences * sizes.max_text),
                    scores: arena.take(scores),
                    candidates: arena.take(candidates),
                }
            }
            Strategy::Beam(beam) => Memory::Beam {
                scorer: BeamScorer::cut(
                    beam,
                    options.eos_token_id,
                    sizes.beam_limits(),
                    &mut arena,
                ),
                weights: arena.take(sizes.vocab),
                seen: arena.take(sizes.seen),
            },
            Strategy::Contrastive(contrastive) => Memory::Contrastive {
                scorer: ContrastiveScorer::cut(
                    contrastive,
                    sizes.n_embd,
                    sizes.max_text,
                    &mut arena,
                ),
                text: arena.take(sizes.max_text),
                scores: arena.take(sizes.vocab),
                seen: arena.take(sizes.seen),
                hidden: arena.take(sizes.n_embd),
            },
        };
        let ends = [(0, StopReason::Interrupted); SessionOptions::MAX_BRANCHES];
        let results = Results { prompt: 0, count: 0, ends };
        Ok(Self { options: *options, max_prompt, max_text: sizes.max_text, memory, results })
    }

    /// The options.
    pub fn options(&self) -> &DecodingOptions<'o> {
        &self.options
    }

    /// What the next run's draws follow from.
    pub fn set_seed(&mut self, seed: u64) {
        self.options.seed = seed;
    }

    /// Continues `text`, of which the session has read the first [`Session::fed`] tokens:
    /// none, or those before the last ones. See [`Generator::sequences`] for what comes out.
    ///
    /// Afterwards greedy and sampled decoding of one sequence leave in the session what it has
    /// read of the text; contrastive search as well, but it begins by reading the text anew. The
    /// other strategies leave the prompt.
    ///
    /// # Errors
    /// If the text is empty, longer than `max_prompt` or the context allows (which depends on
    /// [`DecodingOptions::overflow`]), or read already; if
    /// the session was made for fewer branches or threads; if no token can be chosen.
    ///
    /// # Panics
    /// If the session was made with fewer `logit_rows` than branches, or is split into branches.
    pub fn run(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        text: &[u32],
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        self.resume(session, par, text, 0, observer)
    }

    /// Goes on with a text of which an earlier run with the same options has written the last
    /// `new_tokens`, as if that had not ended: `max_new_tokens` and `min_new_tokens` count those as
    /// well, and draws follow those that were made. That run must not have ended with the model's
    /// own end of text. [`Generator::sequences`] has what comes behind `text`.
    ///
    /// # Errors
    /// As [`Generator::run`], or if there are new tokens and the strategy writes several texts or
    /// reads several candidates.
    ///
    /// # Panics
    /// As [`Generator::run`], or if the text has fewer tokens.
    pub fn resume(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        text: &[u32],
        new_tokens: usize,
        observer: &mut dyn Observer,
    ) -> Result<(), GenerateError> {
        assert!(new_tokens <= text.len());
        if new_tokens > 0 && self.options.branches() > 1 {
            let reason = "of a text to go on with takes a strategy that writes one token at a time";
            return Err(DecodingError::Conflict { name: "new_tokens", reason }.into());
        }
        (self.results.prompt, self.results.count) = (text.len(), 0);
        let wanted = self.options.max_new_tokens.saturating_sub(new_tokens);
        // Also one token more leaves no room for all that may follow.
        let max = self.max_prompt.saturating_add(new_tokens).min(self.max_text);
        if text.len() > max {
            let (name, value) = ("tokens of the prompt", text.len());
            return Err(crate::error::CapacityError::Option { name, value, max }.into());
        }
        if wanted == 0 {
            return self.only_read(session, par, text);
        }
        match self.options.strategy {
            Strategy::Greedy | Strategy::Sample(_) if self.options.num_return_sequences == 1 => {
                self.run_single(session, par, (text, new_tokens), observer)
            }
            Strategy::Greedy | Strategy::Sample(_) => {
                self.run_sampled(session, par, text, observer)
            }
            Strategy::Beam(_) => self.run_beam(session, par, text, observer),
            Strategy::Contrastive(_) => self.run_contrastive(session, par, text, observer),
        }
    }

    /// No token is asked for: the texts are empty. The last token is not read either, as behind any
    /// other text, so that its logits are there for who goes on.
    fn only_read(
        &mut self,
        session: &mut Session<'_, '_>,
        par: &dyn Parallel,
        text: &[u32],
    ) -> Result<(), GenerateError> {
        if let Some((_, before @ [_, ..])) = unread(session, text).split_last() {
            session.feed(before, par)?;
        }
        self.results.count = self.options.num_return_sequences;
        self.results.ends.fill((text.len(), StopReason::MaxNewTokens));
        Ok(())
    }

    /// The texts that the last run gave: as many as were asked for, the best first with beam
    /// search; fewer only if fewer are possible.
    pub fn sequences(&self) -> impl Iterator<Item = Sequence<'_>> {
        (0..self.results.count).map_while(|i| self.sequence(i))
    }

    fn sequence(&self, i: usize) -> Option<Sequence<'_>> {
        let (len, stop_reason) = self.results.ends[i];
        let new = self.results.prompt..len;
        if new.is_empty() {
            return Some(Sequence { tokens: &[], score: None, stop_reason });
        }
        match &self.memory {
            Memory::Sampled { texts, .. } => {
                let tokens = &texts[i * self.max_text..][new];
                Some(Sequence { tokens, score: None, stop_reason })
            }
            Memory::Contrastive { text, .. } => {
                Some(Sequence { tokens: &text[new], score: None, stop_reason })
            }
            Memory::Beam { scorer, .. } => {
                let (tokens, score, stop_reason) = scorer.finished(i)?;
                Some(Sequence { tokens, score: Some(score), stop_reason })
            }
        }
    }
}

/// What the session has not read of a text.
fn unread<'t>(session: &Session<'_, '_>, text: &'t [u32]) -> &'t [u32] {
    text.get(session.fed()..).unwrap_or_default()
}
