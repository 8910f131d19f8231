//! Any options with any logits: an error or tokens of the vocabulary, as many as were asked for.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use pocketgpt_runtime::Overflow;
use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::decoding::{
    BeamOptions, Candidate, Context, Continuation, Contrast, ContrastiveOptions, DecodingOptions,
    Distribution, EarlyStopping, Sampler, SamplingOptions, SequenceBias, Stage, StopCriterion,
    Strategy,
};
use pocketgpt_runtime::format::{Encoding, Role, WeightFile};
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

use crate::file::{self, Aligned, Fill};

/// A number of the bits that matter: half of them are anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Number {
    /// Any bits.
    Bits(u32),
    /// Sixteenths.
    Small(i8),
    /// In [0, 1].
    Unit(u8),
    /// One that the arithmetic may stumble over.
    Special(u8),
}

impl Number {
    fn f32(self) -> f32 {
        match self {
            Self::Bits(bits) => f32::from_bits(bits),
            Self::Small(n) => f32::from(n) / 16.0,
            Self::Unit(n) => f32::from(n) / 255.0,
            Self::Special(n) => [
                0.0,
                -0.0,
                1.0,
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::MAX,
                f32::MIN,
                f32::MIN_POSITIVE,
                f32::from_bits(1),
                f32::EPSILON,
                -f32::EPSILON,
            ][usize::from(n) % 12],
        }
    }
}

/// A count: mostly small.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Count {
    /// Below 16.
    Small(u8),
    /// Any.
    Any(u64),
}

impl Count {
    fn usize(self) -> usize {
        match self {
            Self::Small(n) => usize::from(n) % 16,
            Self::Any(n) => n as usize,
        }
    }
}

/// How tokens are chosen.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum How {
    /// [`Strategy::Greedy`]
    Greedy,
    /// [`Strategy::Sample`]: temperature, `top_k`, `top_p`, `min_p`, `typical_p`.
    Sample(Number, Count, Number, Number, Number),
    /// [`Strategy::Beam`]
    Beam(Count, Number, u8),
    /// [`Strategy::Contrastive`]
    Contrastive(Number, Count),
}

/// A text to write.
#[derive(Arbitrary, Debug)]
pub struct Input {
    how: How,
    max_new_tokens: Count,
    min_new_tokens: Count,
    eos_token_id: Option<u8>,
    num_return_sequences: Count,
    repetition_penalty: Number,
    no_repeat_ngram_size: Count,
    prompt_lookup_num_tokens: Count,
    sequence_bias: Vec<(Vec<u16>, Number)>,
    stop_at: Option<u8>,
    seed: u64,
    text: Vec<u8>,
    max_prompt: Count,
    window: u8,
    interrupt_after: Option<u8>,
    logits: Vec<Number>,
    head: Vec<(u16, Number)>,
}

const VOCAB: usize = 37;
const N_CTX: usize = 24;

fn config() -> Gpt2Config {
    Gpt2Config {
        vocab_size: VOCAB as u32,
        n_ctx: N_CTX as u32,
        n_embd: 32,
        n_layer: 1,
        n_head: 1,
        n_inner: 16,
        activation: Activation::GeluNew,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        tied_head: false,
        layer_norm_epsilon: 1e-5,
        bos_token_id: None,
        eos_token_id: Some(0),
    }
}

#[derive(Debug)]
struct StopAt(Option<u8>);

impl StopCriterion for StopAt {
    fn is_met(&self, new_tokens: &[u32]) -> bool {
        new_tokens.last().is_some_and(|&last| Some(last) == self.0.map(u32::from))
    }
}

/// Interrupts after some tokens, and reads everything that it is shown.
struct Look {
    left: usize,
}

impl Look {
    fn go_on(&mut self) -> ControlFlow<()> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Observer for Look {
    fn chosen(&mut self, _sequence: usize, token: u32) {
        assert!((token as usize) < VOCAB);
    }

    fn token(&mut self, _sequence: usize, token: u32) -> ControlFlow<()> {
        assert!((token as usize) < VOCAB);
        self.go_on()
    }

    fn step(&mut self) -> ControlFlow<()> {
        self.go_on()
    }

    fn stage(&mut self, _sequence: usize, _stage: Stage, left: Distribution<'_>) {
        assert!(left.iter().all(|candidate| (candidate.token as usize) < VOCAB));
    }

    fn continuations(&mut self, continuations: &[Continuation]) {
        assert!(continuations.iter().all(|c| (c.token as usize) < VOCAB));
    }

    fn contrasts(&mut self, candidates: &[Contrast], chosen: usize) {
        assert!(chosen < candidates.len());
    }
}

/// Draws from the logits, then writes a text with a model whose head has the weights.
pub fn run(input: &Input) {
    let tokens: Vec<Vec<u32>> = input
        .sequence_bias
        .iter()
        .take(8)
        .map(|(tokens, _)| tokens.iter().map(|&t| u32::from(t) % (VOCAB as u32 + 2)).collect())
        .collect();
    let biases: Vec<SequenceBias<'_>> = tokens
        .iter()
        .zip(&input.sequence_bias)
        .map(|(tokens, (_, bias))| SequenceBias { tokens, bias: bias.f32() })
        .collect();
    let stop = StopAt(input.stop_at);
    let strategy = match input.how {
        How::Greedy => Strategy::Greedy,
        How::Sample(temperature, top_k, top_p, min_p, typical_p) => {
            Strategy::Sample(SamplingOptions {
                temperature: temperature.f32(),
                top_k: top_k.usize() as u32,
                top_p: top_p.f32(),
                min_p: min_p.f32(),
                typical_p: typical_p.f32(),
            })
        }
        How::Beam(num_beams, length_penalty, early) => Strategy::Beam(BeamOptions {
            num_beams: num_beams.usize(),
            length_penalty: length_penalty.f32(),
            early_stopping: [EarlyStopping::False, EarlyStopping::True, EarlyStopping::Never]
                [usize::from(early) % 3],
        }),
        How::Contrastive(penalty_alpha, top_k) => Strategy::Contrastive(ContrastiveOptions {
            penalty_alpha: penalty_alpha.f32(),
            top_k: top_k.usize(),
        }),
    };
    let options = DecodingOptions {
        strategy,
        max_new_tokens: input.max_new_tokens.usize(),
        min_new_tokens: input.min_new_tokens.usize(),
        eos_token_id: input.eos_token_id.map(u32::from),
        num_return_sequences: input.num_return_sequences.usize(),
        repetition_penalty: input.repetition_penalty.f32(),
        no_repeat_ngram_size: input.no_repeat_ngram_size.usize(),
        sequence_bias: &biases,
        stop: Some(&stop),
        prompt_lookup_num_tokens: input.prompt_lookup_num_tokens.usize(),
        // A text that goes on takes memory for all of it, so not with any numbers.
        overflow: match input.max_new_tokens.usize().max(input.max_prompt.usize()) {
            ..1000 => Overflow::ALL[usize::from(input.window / 64) % 3],
            _ => Overflow::Stop,
        },
        seed: input.seed,
    };
    let text: Vec<u32> = input.text.iter().map(|&t| u32::from(t) % (VOCAB as u32 + 1)).collect();
    draw(&options, input, &text);
    generate(&options, input, &text);
}

fn draw(options: &DecodingOptions<'_>, input: &Input, text: &[u32]) {
    let logits: Vec<f32> = input.logits.iter().take(100).map(|n| n.f32()).collect();
    let (mut scores, mut candidates) =
        (vec![0.0; logits.len()], vec![Candidate::default(); logits.len().max(text.len())]);
    let Ok(mut sampler) = Sampler::new(options, &mut scores, &mut candidates) else { return };
    let kernels = Kernels::best();
    for new_tokens in [0, text.len()] {
        let context = Context { text, new_tokens };
        let mut sum = 0.0;
        let distribution = sampler.distribution(&kernels, &logits, context, |token, p| {
            assert!((token as usize) < logits.len() && (0.0..=1.0).contains(&p), "{token}: {p}");
            sum += p;
        });
        let next = sampler.next(&kernels, &logits, context);
        assert_eq!(distribution.err(), next.err());
        if let Ok(token) = next {
            assert!((token as usize) < logits.len());
            assert!((sum - 1.0).abs() < 1e-3, "probabilities sum to {sum}");
        }
    }
}

fn model() -> &'static [u8] {
    static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
    MODEL.get_or_init(|| file::file(&config(), &[], |_| Encoding::F32, Fill::Sound))
}

fn generate(options: &DecodingOptions<'_>, input: &Input, text: &[u32]) {
    let config = config();
    let mut bytes = model().to_vec();
    let head = {
        let copy = Aligned::new(&bytes);
        let entry = WeightFile::new(copy.bytes()).expect("a model").tensor(Role::LmHead, 0).entry;
        entry.offset as usize..entry.end() as usize
    };
    for (at, number) in input.head.iter().take(64) {
        let at = head.start + 4 * (usize::from(*at) % (head.len() / 4));
        bytes[at..at + 4].copy_from_slice(&number.f32().to_le_bytes());
    }
    let copy = Aligned::new(&bytes);
    let file = WeightFile::new(copy.bytes()).expect("opening does not look at weights");

    let max_prompt = input.max_prompt.usize();
    // As programs do it: what the options need, then what the model needs.
    let Ok(lines) = Generator::lines(&config, options, max_prompt) else { return };
    assert!(lines < 1 << 16, "{lines} lines");
    let base = SessionOptions {
        window: 1 + usize::from(input.window) % N_CTX,
        batch: 4,
        ..SessionOptions::new(&config)
    };
    let needed = options.session_options(&base, max_prompt);
    let Ok(plan) = Plan::new(&config, &needed) else { return };
    assert!(plan.lines() < 1 << 18, "{plan:?}");
    let results = [Isa::Scalar, Isa::best()].map(|isa| {
        let (mut memory, mut own) = (vec![Line::ZERO; plan.lines()], vec![Line::ZERO; lines]);
        let kernels = Kernels::for_isa(isa).expect("scalar, or what was found");
        let mut session =
            Session::new(Gpt2::new(file, kernels), &needed, &mut memory).expect("as planned");
        let mut generator =
            Generator::new(&config, options, max_prompt, &mut own).expect("as planned");
        let mut look = Look { left: input.interrupt_after.map_or(usize::MAX, usize::from) };
        let result = generator.run(&mut session, &Serial, text, &mut look);
        let mut texts = Vec::new();
        if result.is_ok() {
            for sequence in generator.sequences() {
                assert!(sequence.tokens.iter().all(|&token| (token as usize) < VOCAB));
                assert!(sequence.tokens.len() <= options.max_new_tokens);
                texts.push((sequence.tokens.to_vec(), sequence.stop_reason));
            }
            assert!(texts.len() <= options.num_return_sequences);
        }
        (result.map_err(|error| error.to_string()), texts)
    });
    assert_eq!(results[0], results[1], "kernels differ");
}
