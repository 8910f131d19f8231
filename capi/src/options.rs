//! Everything that can be asked for, in one struct.

use core::ffi::c_char;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, EarlyStopping, SamplingOptions, SequenceBias,
    StopTexts, Strategy,
};
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_runtime::{KvType, Overflow};

use crate::boundary::{array, c_text, fill, guard, shared, sized};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, lines_of};
use crate::model::{default_kv, pgpt_model};

/// How keys and values are stored.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_kv {
    PGPT_KV_F32 = 0,
    PGPT_KV_F16 = 1,
    /// int8 with one scale per head.
    PGPT_KV_Q8 = 2,
}

/// How tokens are chosen.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_strategy {
    /// The most probable token.
    PGPT_STRATEGY_GREEDY = 0,
    /// Drawn at random, by probability.
    PGPT_STRATEGY_SAMPLE = 1,
    /// Beam search.
    PGPT_STRATEGY_BEAM = 2,
    /// Contrastive search.
    PGPT_STRATEGY_CONTRASTIVE = 3,
}

/// When a beam search ends before `max_new_tokens`.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_early_stopping {
    /// When a text of the best beam's present length could not beat the finished ones.
    PGPT_EARLY_STOPPING_FALSE = 0,
    /// As soon as `num_beams` texts have ended.
    PGPT_EARLY_STOPPING_TRUE = 1,
    /// When no continuation can beat the finished ones, however long.
    PGPT_EARLY_STOPPING_NEVER = 2,
}

/// What happens when a text has used all positions of the model.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_overflow {
    /// It ends.
    PGPT_OVERFLOW_STOP = 0,
    /// It goes on with its first `keep` and its last `tail` tokens, which are read anew: one long
    /// pause each time.
    PGPT_OVERFLOW_REFILL = 1,
    /// The same, bit for bit, without the pause: from the middle on tokens are also read into a second
    /// cache.
    PGPT_OVERFLOW_SHADOW = 2,
}

/// What is added to the logit of the last of these tokens where the others stand at the end of the
/// text: with one token, to its logit always. -INFINITY excludes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_sequence_bias {
    pub tokens: *const u32,
    pub count: usize,
    pub bias: f32,
}

/// What is wanted. pgpt_options_init sets everything; change what you like. Names and meanings are
/// those of Hugging Face's generation config.
///
/// Sizes follow from it, so use the same options for pgpt_..._size and pgpt_..._new.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_options {
    /// sizeof(pgpt_options), set by pgpt_options_init.
    pub size: usize,
    /// One of pgpt_kv: at first as exact as the weights are.
    pub kv: u32,
    /// Positions that attention sees, at first all that the model has: the first `keep` and the last
    /// ones.
    pub window: u32,
    /// Tokens at the beginning of the text that stay, at first 0.
    pub keep: u32,
    /// One of pgpt_overflow, at first PGPT_OVERFLOW_STOP.
    pub overflow: u32,
    /// Tokens that stay behind the kept ones when the context begins anew; 0: half of them.
    pub tail: u32,
    /// Most tokens of a prompt that are read together.
    pub batch: u32,
    /// Most threads.
    pub threads: u32,
    /// Longest prompt for a generator, in tokens.
    pub max_prompt: u32,

    /// One of pgpt_strategy, at first PGPT_STRATEGY_GREEDY.
    pub strategy: u32,
    /// Most tokens to write, at first 20.
    pub max_new_tokens: u32,
    /// The text does not end before it has this many new tokens.
    pub min_new_tokens: u32,
    /// Token that ends the text, -1 for none; at first the model's own.
    pub eos_token_id: i64,
    /// How many texts: drawn independently, or the best of a beam search.
    pub num_return_sequences: u32,
    /// Above 1 tokens that are in the text already become less probable; 1 changes nothing.
    pub repetition_penalty: f32,
    /// No run of this many tokens occurs twice; 0 allows all.
    pub no_repeat_ngram_size: u32,
    /// Tokens guessed at once from repetitions in the text; changes nothing but the speed. 0: none.
    pub prompt_lookup_num_tokens: u32,
    /// What draws follow from.
    pub seed: u64,

    /// Sampling: logits are divided by it. 1 changes nothing.
    pub temperature: f32,
    /// Sampling: only this many most probable tokens stay; 0 keeps all.
    pub top_k: u32,
    /// Sampling: the most probable tokens whose probabilities reach this stay; 1 keeps all.
    pub top_p: f32,
    /// Sampling: tokens less probable than this times the most probable one go; 0 keeps all.
    pub min_p: f32,
    /// Sampling: the tokens nearest to the expected information that reach this stay; 1 keeps all.
    pub typical_p: f32,
    /// Beam search: texts written side by side.
    pub num_beams: u32,
    /// Beam search: above 0 longer texts win.
    pub length_penalty: f32,
    /// Beam search: one of pgpt_early_stopping.
    pub early_stopping: u32,
    /// Contrastive search: how much a token must differ from the text.
    pub penalty_alpha: f32,
    /// Contrastive search: candidates.
    pub contrastive_top_k: u32,

    /// Tokens that are to be more or less probable; must stay as long as the generator or sampler.
    pub sequence_bias: *const pgpt_sequence_bias,
    pub sequence_bias_count: usize,
    /// Texts behind which to stop, each ended by NUL; must stay as long as the generator.
    pub stop: *const *const c_char,
    pub stop_count: usize,
}

/// Sets all options to their defaults for this model. `options_size` is sizeof(pgpt_options).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_options_init(
    model: *const pgpt_model,
    options: *mut pgpt_options,
    options_size: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let model = shared(model, "model")?.model;
            let kv = default_kv(model.file());
            let value = pgpt_options::new(model.config(), kv, options_size);
            fill(options, options_size, value, "options")
        })
    }
}

impl pgpt_options {
    fn new(config: &Gpt2Config, kv: KvType, size: usize) -> Self {
        let session = SessionOptions::new(config);
        let decoding = DecodingOptions::new(config);
        let (sampling, beam, contrastive) =
            (SamplingOptions::default(), BeamOptions::default(), ContrastiveOptions::default());
        Self {
            size,
            kv: kv as u32,
            window: session.window as u32,
            keep: session.keep as u32,
            overflow: pgpt_overflow::PGPT_OVERFLOW_STOP as u32,
            tail: 0,
            batch: session.batch as u32,
            threads: session.threads as u32,
            max_prompt: config.n_ctx,
            strategy: pgpt_strategy::PGPT_STRATEGY_GREEDY as u32,
            max_new_tokens: decoding.max_new_tokens as u32,
            min_new_tokens: decoding.min_new_tokens as u32,
            eos_token_id: decoding.eos_token_id.map_or(-1, i64::from),
            num_return_sequences: decoding.num_return_sequences as u32,
            repetition_penalty: decoding.repetition_penalty,
            no_repeat_ngram_size: decoding.no_repeat_ngram_size as u32,
            prompt_lookup_num_tokens: decoding.prompt_lookup_num_tokens as u32,
            seed: decoding.seed,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            typical_p: sampling.typical_p,
            num_beams: beam.num_beams as u32,
            length_penalty: beam.length_penalty,
            early_stopping: pgpt_early_stopping::PGPT_EARLY_STOPPING_FALSE as u32,
            penalty_alpha: contrastive.penalty_alpha,
            contrastive_top_k: contrastive.top_k as u32,
            sequence_bias: core::ptr::null(),
            sequence_bias_count: 0,
            stop: core::ptr::null(),
            stop_count: 0,
        }
    }

    /// # Errors
    /// If it is NULL or of an unknown size.
    ///
    /// # Safety
    /// The contract of all functions.
    pub(crate) unsafe fn read(options: *const Self) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        unsafe { sized(options, "options") }
    }

    /// What a session is made with.
    ///
    /// # Errors
    /// If an option is out of range.
    pub(crate) fn session(&self, config: &Gpt2Config) -> Result<SessionOptions, Failure> {
        let decoding = self.plain_decoding()?;
        decoding.validate()?;
        let base = SessionOptions {
            kv: match self.kv {
                0 => KvType::F32,
                1 => KvType::F16,
                2 => KvType::Q8,
                found => return Err(Failure::Code { name: "kv", found }),
            },
            window: self.window as usize,
            keep: self.keep as usize,
            tail: (self.tail > 0).then_some(self.tail as usize),
            batch: self.batch as usize,
            threads: self.threads as usize,
            ..SessionOptions::new(config)
        };
        Ok(decoding.session_options(&base, self.max_prompt as usize))
    }

    /// How tokens are chosen, but for the lists.
    ///
    /// # Errors
    /// If a code is unknown.
    pub(crate) fn plain_decoding(&self) -> Result<DecodingOptions<'static>, Failure> {
        let strategy = match self.strategy {
            0 => Strategy::Greedy,
            1 => Strategy::Sample(SamplingOptions {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical_p,
            }),
            2 => Strategy::Beam(BeamOptions {
                num_beams: self.num_beams as usize,
                length_penalty: self.length_penalty,
                early_stopping: match self.early_stopping {
                    0 => EarlyStopping::False,
                    1 => EarlyStopping::True,
                    2 => EarlyStopping::Never,
                    found => return Err(Failure::Code { name: "early_stopping", found }),
                },
            }),
            3 => Strategy::Contrastive(ContrastiveOptions {
                penalty_alpha: self.penalty_alpha,
                top_k: self.contrastive_top_k as usize,
            }),
            found => return Err(Failure::Code { name: "strategy", found }),
        };
        let eos_token_id = match self.eos_token_id {
            -1 => None,
            id => Some(
                u32::try_from(id)
                    .map_err(|_| Failure::Option("eos_token_id is neither a token nor -1"))?,
            ),
        };
        Ok(DecodingOptions {
            strategy,
            max_new_tokens: self.max_new_tokens as usize,
            min_new_tokens: self.min_new_tokens as usize,
            eos_token_id,
            num_return_sequences: self.num_return_sequences as usize,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size as usize,
            sequence_bias: &[],
            stop: None,
            prompt_lookup_num_tokens: self.prompt_lookup_num_tokens as usize,
            overflow: match self.overflow {
                0 => Overflow::Stop,
                1 => Overflow::Refill,
                2 => Overflow::Shadow,
                found => return Err(Failure::Code { name: "overflow", found }),
            },
            seed: self.seed,
        })
    }

    /// Lines that [`pgpt_options::decoding`] takes.
    pub(crate) fn list_lines(&self) -> usize {
        lines_of::<SequenceBias<'_>>(self.sequence_bias_count)
            .saturating_add(lines_of::<&str>(self.stop_count))
            .saturating_add(lines_of::<StopTexts<'_>>(1))
    }

    /// How tokens are chosen, with the lists, which are put into the memory as the runtime wants
    /// them.
    ///
    /// # Errors
    /// If a code is unknown, a list NULL, a text not UTF-8, or there are stop texts and no
    /// tokenizer.
    ///
    /// # Safety
    /// The contract of all functions; lists stay as long as what is made with the result.
    pub(crate) unsafe fn decoding(
        &self,
        model: &pgpt_model,
        memory: &mut Memory,
    ) -> Result<DecodingOptions<'static>, Failure> {
        // SAFETY: the caller's promise.
        let biases =
            unsafe { array(self.sequence_bias, self.sequence_bias_count, "sequence_bias") }?;
        let sequence_bias = memory.values(biases.len(), |i| {
            let pgpt_sequence_bias { tokens, count, bias } = biases[i];
            // SAFETY: the caller's promise.
            let tokens = unsafe { array(tokens, count, "tokens of sequence_bias") }?;
            Ok(SequenceBias { tokens, bias })
        })?;
        // SAFETY: the caller's promise.
        let texts = unsafe { array(self.stop, self.stop_count, "stop") }?;
        let texts: &'static [&'static str] = memory.values(texts.len(), |i| {
            // SAFETY: the caller's promise.
            unsafe { c_text(texts[i], "a stop text") }
        })?;
        let mut options = DecodingOptions { sequence_bias, ..self.plain_decoding()? };
        if !texts.is_empty() {
            let stop = StopTexts::new(model.tokenizer()?, texts);
            let stop: &'static [StopTexts<'static>] = memory.values(1, |_| Ok(stop))?;
            options.stop = Some(&stop[0]);
        }
        Ok(options)
    }
}
