//! Prompt lookup changes nothing but the speed.

use std::ops::ControlFlow;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{
    DecodingOptions, SamplingOptions, StopCriterion, StopReason, Strategy,
};
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, bits, bundled, nan_lines, with_session};

/// What a run leaves: text, reason, what was chosen, passes, positions read, and the logits after
/// one token more, which show what is in the cache.
#[derive(Debug, PartialEq)]
struct Outcome {
    tokens: Vec<u32>,
    reason: StopReason,
    told: Vec<u32>,
    chosen: Vec<u32>,
    position: usize,
    next: Option<Vec<u32>>,
}

#[derive(Default)]
struct Watch {
    told: Vec<u32>,
    chosen: Vec<u32>,
    steps: usize,
    /// Tokens after which the observer ends the text.
    enough: usize,
}

impl Observer for Watch {
    fn token(&mut self, _sequence: usize, token: u32) -> ControlFlow<()> {
        self.told.push(token);
        if self.told.len() == self.enough {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
    fn chosen(&mut self, _sequence: usize, token: u32) {
        self.chosen.push(token);
    }
    fn step(&mut self) -> ControlFlow<()> {
        self.steps += 1;
        ControlFlow::Continue(())
    }
}

fn run(
    model: Gpt2<'_>,
    base: &SessionOptions,
    options: &DecodingOptions<'_>,
    prompt: &[u32],
    enough: usize,
) -> (Outcome, usize) {
    let config = *model.config();
    let session = options.session_options(base, prompt.len());
    let mut own = nan_lines(Generator::lines(&config, options, prompt.len()).unwrap());
    let mut generator = Generator::new(&config, options, prompt.len(), &mut own).unwrap();
    let mut watch = Watch { enough, ..Watch::default() };
    let (position, next) = with_session(model, &session, |session| {
        generator.run(session, &Serial, prompt, &mut watch).unwrap();
        let position = session.position();
        (position, session.feed(&[5], &Serial).ok().map(bits))
    });
    let text = generator.sequences().next().unwrap();
    let (tokens, reason) = (text.tokens.to_vec(), text.stop_reason);
    let Watch { told, chosen, steps, .. } = watch;
    (Outcome { tokens, reason, told, chosen, position, next }, steps)
}

/// Ends a text at a length.
#[derive(Debug)]
struct At(usize);

impl StopCriterion for At {
    fn is_met(&self, new_tokens: &[u32]) -> bool {
        new_tokens.len() == self.0
    }
}

#[test]
fn texts_with_and_without_lookup_are_the_same() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let model = file.model();
    let plain = DecodingOptions { max_new_tokens: 120, ..DecodingOptions::new(model.config()) };
    // Low temperatures repeat themselves, high ones do not.
    let sampled = |temperature| {
        let sampling = SamplingOptions { temperature, ..SamplingOptions::default() };
        DecodingOptions { strategy: Strategy::Sample(sampling), seed: 4, ..plain }
    };
    let penalized = DecodingOptions { repetition_penalty: 1.05, ..sampled(0.3) };
    let prompt = [3478, 813, 258, 542];
    let mut saved = 0;
    for (name, options) in [
        ("greedy", plain),
        ("0.3", sampled(0.3)),
        ("1", sampled(1.0)),
        ("penalized", penalized),
        ("n-grams", DecodingOptions { no_repeat_ngram_size: 5, ..plain }),
    ] {
        for (kv, window) in [(KvType::Q8, 512), (KvType::F32, 512), (KvType::F16, 40)] {
            let base = SessionOptions { kv, window, ..SessionOptions::new(model.config()) };
            let (expected, steps) = run(model, &base, &options, &prompt, 0);
            for n in [1, 2, 5, 10, 64] {
                let options = DecodingOptions { prompt_lookup_num_tokens: n, ..options };
                let (found, fewer) = run(model, &base, &options, &prompt, 0);
                assert_eq!(found, expected, "{name} {kv} {n}");
                saved += steps - fewer;
            }
        }
    }
    assert!(saved > 500, "{saved}");
}

#[test]
fn a_text_may_end_anywhere_in_a_draft() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let model = file.model();
    let base = SessionOptions::new(model.config());
    let prompt: Vec<u32> = [3478, 813, 258, 542].into_iter().cycle().take(40).collect();
    let plain = DecodingOptions::new(model.config());
    for len in 20..45 {
        let stop = At(len);
        let with_lookup = |options: DecodingOptions<'_>, base, enough, reason| {
            let options = DecodingOptions { prompt_lookup_num_tokens: 10, ..options };
            let found = run(model, base, &options, &prompt, enough);
            let options = DecodingOptions { prompt_lookup_num_tokens: 0, ..options };
            let expected = run(model, base, &options, &prompt, enough);
            assert_eq!(found.0, expected.0);
            assert_eq!((found.0.tokens.len(), found.0.reason), (len, reason));
            assert!(found.1 < expected.1, "{} {}", found.1, expected.1);
        };
        let long = DecodingOptions { max_new_tokens: 1000, ..plain };
        let short = DecodingOptions { max_new_tokens: len, ..plain };
        with_lookup(short, &base, 0, StopReason::MaxNewTokens);
        with_lookup(DecodingOptions { stop: Some(&stop), ..long }, &base, 0, StopReason::StopText);
        with_lookup(long, &base, len, StopReason::Interrupted);
    }
    // The context as well: 512 positions, and one more token.
    let prompt: Vec<u32> = prompt.into_iter().cycle().take(470).collect();
    let long = DecodingOptions { max_new_tokens: 1000, prompt_lookup_num_tokens: 10, ..plain };
    let (found, _) = run(model, &base, &long, &prompt, 0);
    let (expected, _) =
        run(model, &base, &DecodingOptions { prompt_lookup_num_tokens: 0, ..long }, &prompt, 0);
    assert_eq!(found, expected);
    assert_eq!((found.tokens.len(), found.reason), (43, StopReason::ContextFull));
}
