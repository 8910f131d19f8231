//! What is to be generated and how, with the names and the meaning of Hugging Face's generation
//! config.

use core::ops::RangeInclusive;

use super::error::DecodingError;
use super::processors::SequenceBias;
use super::stop::StopCriterion;
use crate::config::Gpt2Config;
use crate::overflow::Overflow;
use crate::workspace::SessionOptions;

/// How the distribution is reshaped before a token is drawn. The default changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// Only this many most probable tokens stay (and those equal to the last); 0 keeps all.
    pub top_k: u32,
    /// The smallest set of most probable tokens whose probabilities reach this stays (Holtzman et
    /// al. 2020); in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Tokens less probable than this times the most probable go; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// The tokens whose information is nearest to the expected one stay, as many as reach this
    /// probability (Meister et al. 2023); in (0, 1], 1 keeps all.
    pub typical_p: f32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, typical_p: 1.0 }
    }
}

/// When a beam search ends before `max_new_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// `false`: when a text of the best beam's present length could not beat the finished ones.
    #[default]
    False,
    /// `true`: as soon as `num_beams` texts have ended.
    True,
    /// `"never"`: when no continuation can beat the finished ones, however long.
    Never,
}

/// Beam search: the `num_beams` most probable texts are written side by side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamOptions {
    /// Texts that are kept, 1 to [`SessionOptions::MAX_BRANCHES`].
    pub num_beams: usize,
    /// A finished text's score is its log-probability divided by its length to this power: above
    /// 0 longer texts win, below 0 shorter ones.
    pub length_penalty: f32,
    /// When to stop.
    pub early_stopping: EarlyStopping,
}

impl Default for BeamOptions {
    fn default() -> Self {
        Self { num_beams: 4, length_penalty: 1.0, early_stopping: EarlyStopping::False }
    }
}

/// Contrastive search (Su et al. 2022): of the `top_k` most probable tokens the one whose
/// `(1 − α) · probability − α · similarity to what has been written` is largest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastiveOptions {
    /// α, above 0, at most 1.
    pub penalty_alpha: f32,
    /// Candidates, 1 to [`SessionOptions::MAX_BRANCHES`].
    pub top_k: usize,
}

impl Default for ContrastiveOptions {
    fn default() -> Self {
        Self { penalty_alpha: 0.6, top_k: 4 }
    }
}

/// How tokens are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// The most probable token; the lowest id where several are.
    Greedy,
    /// Drawn from the reshaped distribution.
    Sample(SamplingOptions),
    /// The most probable text, as far as a beam finds it.
    Beam(BeamOptions),
    /// Probable and unlike what has been written.
    Contrastive(ContrastiveOptions),
}

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct DecodingOptions<'a> {
    /// How tokens are chosen.
    pub strategy: Strategy,
    /// Most tokens to write.
    pub max_new_tokens: usize,
    /// The text does not end before it has this many new tokens.
    pub min_new_tokens: usize,
    /// Token that ends the text; it is not part of what is written.
    pub eos_token_id: Option<u32>,
    /// How many texts: independent ones with [`Strategy::Sample`], the best with
    /// [`Strategy::Beam`].
    pub num_return_sequences: usize,
    /// Above 1 tokens that are in the text already become less probable; 1 changes nothing.
    pub repetition_penalty: f32,
    /// No run of this many tokens occurs twice; 0 allows all.
    pub no_repeat_ngram_size: usize,
    /// Tokens, and sequences of tokens, that are to be more or less probable.
    pub sequence_bias: &'a [SequenceBias<'a>],
    /// What ends a text besides `eos_token_id`.
    pub stop: Option<&'a dyn StopCriterion>,
    /// Tokens drafted at once from repetitions in the text; 0 drafts none. Changes nothing but the
    /// speed.
    pub prompt_lookup_num_tokens: usize,
    /// What happens when all positions are used. A text that goes on is one text, written token by
    /// token: beams, candidates and several sequences stop there. Everything that looks at the text
    /// (penalties, n-grams, stop texts) sees all of it, not the context alone.
    pub overflow: Overflow,
    /// What draws follow from.
    pub seed: u64,
}

/// Repetition penalties accepted: far beyond them logits overflow.
const PENALTIES: RangeInclusive<f32> = 0.01..=100.0;
/// Length penalties accepted: with 1024 tokens the divisor stays a number.
const LENGTH_PENALTIES: RangeInclusive<f32> = -10.0..=10.0;
/// Biases accepted, besides negative infinity.
const BIASES: RangeInclusive<f32> = -1e6..=1e6;

impl DecodingOptions<'_> {
    /// Most drafted tokens.
    pub const MAX_PROMPT_LOOKUP: usize = 64;
    /// Most tokens to write where the context does not end the text.
    pub const MAX_NEW_TOKENS: usize = 1 << 24;

    /// One text of at most 20 tokens, greedily, up to the model's own end.
    pub fn new(config: &Gpt2Config) -> Self {
        Self {
            strategy: Strategy::Greedy,
            max_new_tokens: 20,
            min_new_tokens: 0,
            eos_token_id: config.eos_token_id,
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            sequence_bias: &[],
            stop: None,
            prompt_lookup_num_tokens: 0,
            overflow: Overflow::Stop,
            seed: 0,
        }
    }

    /// Branches of the session that this takes: sequences that go through the model side by side.
    pub fn branches(&self) -> usize {
        match self.strategy {
            Strategy::Greedy => 1,
            Strategy::Sample(_) => self.num_return_sequences,
            // Also where there is one, it is a branch.
            Strategy::Beam(beam) => beam.num_beams.max(2),
            Strategy::Contrastive(contrastive) => contrastive.top_k.max(2),
        }
    }

    /// # Errors
    /// The first option that is outside its range or makes no sense beside the others.
    pub fn validate(&self) -> Result<(), DecodingError> {
        check(
            PENALTIES.contains(&self.repetition_penalty),
            "repetition_penalty",
            self.repetition_penalty,
            "0.01 to 100",
        )?;
        for &SequenceBias { tokens, bias } in self.sequence_bias {
            let in_range = BIASES.contains(&bias) || bias == f32::NEG_INFINITY;
            check(in_range, "sequence_bias", bias, "-1000000 to 1000000, or negative infinity")?;
            conflict(tokens.is_empty(), "sequence_bias", "has a sequence without tokens")?;
        }
        conflict(
            self.min_new_tokens > self.max_new_tokens,
            "min_new_tokens",
            "is above max_new_tokens",
        )?;
        check_count("num_return_sequences", self.num_return_sequences)?;
        match &self.strategy {
            Strategy::Greedy => self.one_sequence("is more than one, but greedy has one result"),
            Strategy::Sample(options) => options.validate(),
            Strategy::Beam(options) => {
                options.validate()?;
                conflict(
                    self.num_return_sequences > options.num_beams,
                    "num_return_sequences",
                    "is above num_beams",
                )
            }
            Strategy::Contrastive(options) => {
                options.validate()?;
                self.one_sequence("is more than one, but contrastive search has one result")
            }
        }?;
        self.validate_lookup()?;
        self.validate_overflow()
    }

    fn validate_overflow(&self) -> Result<(), DecodingError> {
        if self.overflow == Overflow::Stop {
            return Ok(());
        }
        let reason = match self.strategy {
            Strategy::Beam(_) => "goes on with one text only: beam search writes several",
            Strategy::Contrastive(_) => {
                "goes on token by token: contrastive search reads several candidates"
            }
            _ => "goes on with one text only, not with num_return_sequences above 1",
        };
        conflict(self.branches() > 1, "overflow", reason)?;
        let n = self.max_new_tokens;
        check(n <= Self::MAX_NEW_TOKENS, "max_new_tokens", n as f32, "0 to 16777216")
    }

    fn one_sequence(&self, reason: &'static str) -> Result<(), DecodingError> {
        conflict(self.num_return_sequences > 1, "num_return_sequences", reason)
    }

    fn validate_lookup(&self) -> Result<(), DecodingError> {
        let (name, n) = ("prompt_lookup_num_tokens", self.prompt_lookup_num_tokens);
        check(n <= Self::MAX_PROMPT_LOOKUP, name, n as f32, "0 to 64")?;
        if n == 0 {
            return Ok(());
        }
        let one_token_at_a_time = matches!(self.strategy, Strategy::Greedy | Strategy::Sample(_));
        conflict(!one_token_at_a_time, name, "works with greedy decoding and sampling only")?;
        conflict(self.num_return_sequences > 1, name, "works with one sequence only")
    }

    /// The session that this needs: `base` with room for the sequences side by side, after a
    /// prompt of at most `max_prompt` tokens.
    pub fn session_options(&self, base: &SessionOptions, max_prompt: usize) -> SessionOptions {
        let branches = self.branches();
        let rows = branches.max(self.prompt_lookup_num_tokens + 1);
        let mut options = SessionOptions {
            branches,
            logit_rows: base.logit_rows.max(rows),
            batch: base.batch.max(rows),
            overflow: self.overflow,
            ..*base
        };
        if branches > 1 {
            // The prompt after which the most is left to write.
            let prompt = max_prompt.min(base.window.saturating_sub(self.max_new_tokens));
            let left = base.window - prompt;
            options.branch_slots = match self.strategy {
                // One candidate's slot is kept, those of the others are free again.
                Strategy::Contrastive(_) => branches,
                // At worst no sequence shares anything but the prompt with another.
                _ => branches * self.max_new_tokens.min(left) - left.min(self.max_new_tokens),
            };
        }
        options
    }
}

impl SamplingOptions {
    /// # Errors
    /// The first option that is outside its range.
    pub fn validate(&self) -> Result<(), DecodingError> {
        let Self { temperature, top_p, min_p, typical_p, .. } = *self;
        check(temperature > 0.0 && temperature.is_finite(), "temperature", temperature, "above 0")?;
        check(top_p > 0.0 && top_p <= 1.0, "top_p", top_p, "above 0 and at most 1")?;
        check((0.0..=1.0).contains(&min_p), "min_p", min_p, "0 to 1")?;
        let in_range = typical_p > 0.0 && typical_p <= 1.0;
        check(in_range, "typical_p", typical_p, "above 0 and at most 1")
    }
}

impl BeamOptions {
    fn validate(&self) -> Result<(), DecodingError> {
        check_count("num_beams", self.num_beams)?;
        let in_range = LENGTH_PENALTIES.contains(&self.length_penalty);
        check(in_range, "length_penalty", self.length_penalty, "-10 to 10")
    }
}

impl ContrastiveOptions {
    fn validate(&self) -> Result<(), DecodingError> {
        let alpha = self.penalty_alpha;
        check(alpha > 0.0 && alpha <= 1.0, "penalty_alpha", alpha, "above 0 and at most 1")?;
        check_count("top_k", self.top_k)
    }
}

fn check(
    ok: bool,
    name: &'static str,
    value: f32,
    range: &'static str,
) -> Result<(), DecodingError> {
    if ok { Ok(()) } else { Err(DecodingError::Option { name, value, range }) }
}

fn check_count(name: &'static str, n: usize) -> Result<(), DecodingError> {
    check((1..=SessionOptions::MAX_BRANCHES).contains(&n), name, n as f32, "1 to 64")
}

fn conflict(excluded: bool, name: &'static str, reason: &'static str) -> Result<(), DecodingError> {
    if excluded { Err(DecodingError::Conflict { name, reason }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecodingError::{Conflict, Option as OutOfRange};

    fn valid() -> DecodingOptions<'static> {
        DecodingOptions {
            strategy: Strategy::Greedy,
            max_new_tokens: 20,
            min_new_tokens: 0,
            eos_token_id: None,
            num_return_sequences: 1,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            sequence_bias: &[],
            stop: None,
            prompt_lookup_num_tokens: 0,
            overflow: Overflow::Stop,
            seed: 0,
        }
    }

    fn sample(change: impl FnOnce(&mut SamplingOptions)) -> Strategy {
        let mut options = SamplingOptions::default();
        change(&mut options);
        Strategy::Sample(options)
    }

    fn beam(change: impl FnOnce(&mut BeamOptions)) -> Strategy {
        let mut options = BeamOptions::default();
        change(&mut options);
        Strategy::Beam(options)
    }

    #[test]
    fn rejects_what_is_out_of_range() {
        let contrastive = |penalty_alpha, top_k| {
            Strategy::Contrastive(ContrastiveOptions { penalty_alpha, top_k })
        };
        for (option, strategy) in [
            ("temperature", sample(|o| o.temperature = 0.0)),
            ("temperature", sample(|o| o.temperature = f32::NAN)),
            ("top_p", sample(|o| o.top_p = 0.0)),
            ("top_p", sample(|o| o.top_p = 1.5)),
            ("min_p", sample(|o| o.min_p = -0.1)),
            ("typical_p", sample(|o| o.typical_p = 0.0)),
            ("typical_p", sample(|o| o.typical_p = 1.1)),
            ("num_beams", beam(|o| o.num_beams = 0)),
            ("num_beams", beam(|o| o.num_beams = 65)),
            ("length_penalty", beam(|o| o.length_penalty = f32::INFINITY)),
            ("penalty_alpha", contrastive(0.0, 4)),
            ("penalty_alpha", contrastive(1.1, 4)),
            ("top_k", contrastive(0.6, 0)),
        ] {
            let options = DecodingOptions { strategy, ..valid() };
            let error = options.validate().unwrap_err();
            assert!(matches!(error, OutOfRange { name, .. } if name == option), "{error}");
        }
        for penalty in [0.0, -1.0, 1e-40, 1e30, f32::NAN] {
            let options = DecodingOptions { repetition_penalty: penalty, ..valid() };
            assert!(matches!(options.validate(), Err(OutOfRange { .. })));
        }
        for bias in [f32::INFINITY, f32::NAN, 1e7] {
            let sequence_bias = &[SequenceBias { tokens: &[1], bias }][..];
            let options = DecodingOptions { sequence_bias, ..valid() };
            assert!(matches!(options.validate(), Err(OutOfRange { .. })));
        }
    }

    #[test]
    fn rejects_what_makes_no_sense_together() {
        let two = DecodingOptions { num_return_sequences: 2, ..valid() };
        let lookup = DecodingOptions { prompt_lookup_num_tokens: 5, ..valid() };
        let sampled = sample(|_| ());
        let contrastive = Strategy::Contrastive(ContrastiveOptions::default());
        for (option, options) in [
            ("num_return_sequences", two),
            ("num_return_sequences", DecodingOptions { strategy: contrastive, ..two }),
            (
                "num_return_sequences",
                DecodingOptions { strategy: beam(|o| o.num_beams = 1), ..two },
            ),
            ("prompt_lookup_num_tokens", DecodingOptions { strategy: beam(|_| ()), ..lookup }),
            ("prompt_lookup_num_tokens", DecodingOptions { strategy: contrastive, ..lookup }),
            (
                "prompt_lookup_num_tokens",
                DecodingOptions { strategy: sampled, num_return_sequences: 2, ..lookup },
            ),
            ("min_new_tokens", DecodingOptions { min_new_tokens: 21, ..valid() }),
            (
                "sequence_bias",
                DecodingOptions {
                    sequence_bias: &[SequenceBias { tokens: &[], bias: 1.0 }],
                    ..valid()
                },
            ),
        ] {
            let error = options.validate().unwrap_err();
            assert!(matches!(error, Conflict { name, .. } if name == option), "{error}");
        }
        for overflow in [Overflow::Refill, Overflow::Shadow] {
            let goes_on = DecodingOptions { overflow, ..valid() };
            for options in [
                DecodingOptions { strategy: beam(|o| o.num_beams = 1), ..goes_on },
                DecodingOptions { strategy: contrastive, ..goes_on },
                DecodingOptions { strategy: sampled, num_return_sequences: 2, ..goes_on },
            ] {
                let error = options.validate().unwrap_err();
                assert!(matches!(error, Conflict { name: "overflow", .. }), "{error}");
            }
            let error = DecodingOptions { max_new_tokens: usize::MAX, ..goes_on }.validate();
            assert!(matches!(error, Err(OutOfRange { name: "max_new_tokens", .. })));
            DecodingOptions { strategy: sampled, prompt_lookup_num_tokens: 5, ..goes_on }
                .validate()
                .unwrap();
        }
        DecodingOptions { strategy: sampled, ..two }.validate().unwrap();
        DecodingOptions { strategy: beam(|_| ()), ..two }.validate().unwrap();
        DecodingOptions { strategy: sampled, ..lookup }.validate().unwrap();
    }
}
