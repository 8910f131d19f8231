//! Branches compute the same bits as their texts alone, and generated texts do not depend on how
//! they are computed.

use std::collections::HashMap;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, SamplingOptions, Strategy,
};
use pocketgpt_runtime::error::CapacityError;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::{Parallel, Serial};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Quiet, bits, bundled, generate, isas, repository, with_session};

fn base(model: &Gpt2<'_>, kv: KvType, threads: usize) -> SessionOptions {
    SessionOptions { kv, threads, ..SessionOptions::new(model.config()) }
}

/// The logits after texts that are alone, which are computed once: they do not depend on instructions.
struct Alone<'m> {
    model: Gpt2<'m>,
    kv: KvType,
    known: HashMap<Vec<u32>, Vec<u32>>,
}

impl<'m> Alone<'m> {
    fn new(model: Gpt2<'m>, kv: KvType) -> Self {
        Self { model, kv, known: HashMap::new() }
    }

    fn after(&mut self, text: &[u32]) -> &[u32] {
        self.known.entry(text.to_vec()).or_insert_with(|| {
            with_session(self.model, &base(&self.model, self.kv, 1), |session| {
                bits(session.feed(text, &Serial).unwrap())
            })
        })
    }
}

/// Feeds branches that are continued twice, and given up, again and again.
fn check(name: &str, model: Gpt2<'_>, alone: &mut Alone<'_>, par: &dyn Parallel, steps: usize) {
    let (branches, prompt, kv) = (5, 7, alone.kv);
    let vocab = model.config().vocab_size;
    let options = SessionOptions {
        branches,
        // Little room, so that slots are moved together often.
        branch_slots: 3 * branches + 2,
        logit_rows: branches,
        window: prompt + steps,
        batch: 3,
        ..base(&model, kv, par.threads())
    };
    let mut state = 5u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let prompt: Vec<u32> = (0..prompt).map(|_| random(vocab as usize) as u32).collect();
    with_session(model, &options, |session| {
        session.feed(&prompt, par).unwrap();
        let mut texts = vec![prompt.clone(); branches];
        session.split(branches).unwrap();
        for step in 0..steps {
            let tokens: Vec<u32> = texts.iter().map(|_| random(vocab as usize) as u32).collect();
            session.feed_branches(&tokens, par).unwrap();
            for (i, (text, token)) in texts.iter_mut().zip(tokens).enumerate() {
                text.push(token);
                // All of them are much work.
                if (step + i).is_multiple_of(3) {
                    let ours = bits(session.branch_logits(i));
                    assert!(ours == alone.after(text), "{name} {kv} step {step}, branch {i}");
                }
            }
            let count = if step.is_multiple_of(4) { 1 + random(branches) } else { branches };
            let few = 1 + random(texts.len().min(3));
            let parents: Vec<u32> = (0..count).map(|_| random(few) as u32).collect();
            session.reorder(&parents);
            texts = parents.iter().map(|&parent| texts[parent as usize].clone()).collect();
        }
        // One of them is the text from now on.
        let last = texts.len() - 1;
        session.keep(last);
        session.truncate(session.position() - 2);
        let text = &mut texts[last];
        text.truncate(text.len() - 2);
        let ours = bits(session.feed(&[1], par).unwrap());
        text.push(1);
        assert!(ours == alone.after(text), "{name} {kv} kept");
        session.truncate(0);
        let ours = bits(session.feed(&prompt, par).unwrap());
        assert!(ours == alone.after(&prompt), "{name} {kv} anew");
    });
}

const ALL_KV: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];

#[test]
fn branches_equal_their_texts_alone() {
    for (to, kvs) in [(Encoding::Q4, &ALL_KV[..]), (Encoding::F32, &ALL_KV[..1])] {
        let file = Converted::new(&bundled(), to);
        for &kv in kvs {
            let mut alone = Alone::new(file.model(), kv);
            for isa in isas() {
                // Scalar code is slow.
                let (threads, steps) =
                    if isa == Isa::Scalar { (&[2][..], 9) } else { (&[1, 3][..], 40) };
                for &threads in threads {
                    let pool = ThreadPool::new(threads).unwrap();
                    let name = format!("{} {isa} {threads} threads", to.name());
                    check(&name, file.model_on(isa), &mut alone, &pool, steps);
                }
            }
        }
    }
}

#[test]
fn branches_of_odd_shapes_equal_their_texts_alone() {
    for name in ["head-40", "n-inner-100", "head-128", "inverse-layer"] {
        let path = repository("tests/fixtures/variants").join(name);
        let file = Converted::without_tokenizer(&path, Encoding::Q8);
        for kv in ALL_KV {
            check(name, file.model(), &mut Alone::new(file.model(), kv), &Serial, 8);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let file = Converted::new(&bundled(), Encoding::Q8);
    let model = file.model();
    let options = SessionOptions {
        branches: 3,
        branch_slots: 4,
        logit_rows: 3,
        window: 6,
        ..base(&model, KvType::Q8, 1)
    };
    with_session(model, &options, |session| {
        session.feed(&[1, 2], &Serial).unwrap();
        assert!(matches!(session.split(4), Err(CapacityError::Option { name: "branches", .. })));
        assert!(matches!(session.split(0), Err(CapacityError::Option { name: "branches", .. })));
        session.split(3).unwrap();
        let tokens = session.feed_branches(&[1, 2], &Serial);
        assert!(matches!(tokens, Err(CapacityError::Option { name: "tokens", .. })));
        let outside = session.feed_branches(&[1, 4096, 2], &Serial);
        assert!(matches!(outside, Err(CapacityError::TokenId { id: 4096, .. })));
        session.feed_branches(&[1, 2, 3], &Serial).unwrap();
        session.feed_branches(&[1, 2, 3], &Serial).unwrap();
        // Ten slots: two are shared, six and two are used.
        let full = session.feed_branches(&[1, 2, 3], &Serial);
        assert_eq!(full, Err(CapacityError::SlotsFull { slots: 10 }));
        // Nothing was fed, and with fewer branches it goes on.
        session.reorder(&[0, 0, 1]);
        session.feed_branches(&[1, 2, 3], &Serial).unwrap();
        session.reorder(&[2]);
        session.feed_branches(&[1], &Serial).unwrap();
        assert_eq!((session.position(), session.remaining_in_window()), (6, 0));
        let full = session.feed_branches(&[1], &Serial);
        assert_eq!(full, Err(CapacityError::ContextFull { used: 6, adding: 1, capacity: 6 }));
    });
}

fn strategies() -> Vec<DecodingOptions<'static>> {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let plain = DecodingOptions {
        max_new_tokens: 30,
        seed: 11,
        ..DecodingOptions::new(file.model().config())
    };
    let sampling = SamplingOptions { temperature: 0.9, top_p: 0.95, ..SamplingOptions::default() };
    let with = |strategy| DecodingOptions { strategy, ..plain };
    vec![
        with(Strategy::Greedy),
        with(Strategy::Sample(sampling)),
        DecodingOptions { num_return_sequences: 5, ..with(Strategy::Sample(sampling)) },
        with(Strategy::Sample(SamplingOptions { top_k: 20, typical_p: 0.9, ..sampling })),
        DecodingOptions {
            num_return_sequences: 3,
            repetition_penalty: 1.2,
            ..with(Strategy::Beam(BeamOptions::default()))
        },
        with(Strategy::Contrastive(ContrastiveOptions::default())),
    ]
}

#[test]
fn texts_are_the_same_on_all_threads_and_instructions() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let prompt = [3478, 813, 258, 542];
    for options in strategies() {
        let run = |isa, threads| {
            let model = file.model_on(isa);
            let pool = ThreadPool::new(threads).unwrap();
            let base = base(&model, KvType::Q8, threads);
            generate(model, &base, &options, &prompt, &pool, &mut Quiet).unwrap()
        };
        let expected = run(*isas().last().unwrap(), 1);
        assert_eq!(expected.len(), options.num_return_sequences);
        for isa in isas() {
            // Scalar code is slow.
            let threads = if isa == Isa::Scalar { &[2][..] } else { &[1, 2, 4] };
            for &threads in threads {
                assert_eq!(run(isa, threads), expected, "{isa} {threads} {:?}", options.strategy);
            }
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_the_others() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let (model, prompt) = (file.model(), [3478, 813, 258, 542]);
    let run = |n| {
        let strategy = Strategy::Sample(SamplingOptions::default());
        let options = DecodingOptions {
            strategy,
            num_return_sequences: n,
            max_new_tokens: 60,
            // Common, so that sequences end at different times.
            eos_token_id: Some(11),
            seed: 3,
            ..DecodingOptions::new(model.config())
        };
        generate(model, &base(&model, KvType::F32, 1), &options, &prompt, &Serial, &mut Quiet)
            .unwrap()
    };
    let all = run(8);
    for n in [1, 2, 5] {
        assert_eq!(run(n), all[..n]);
    }
    let mut lengths: Vec<usize> = all.iter().map(|text| text.tokens.len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 4, "{lengths:?}");
}
