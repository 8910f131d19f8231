//! Texts longer than the context: what each policy computes, to the bit.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingError, DecodingOptions, SamplingOptions, StopReason,
    Strategy,
};
use pocketgpt_runtime::error::CapacityError;
use pocketgpt_runtime::generate::GenerateError;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::{Parallel, Serial};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_runtime::{KvType, Overflow};
use pocketgpt_tests::{
    Converted, Quiet, bits, bundled, generate, isas, max_difference, repository, synthesize_tiny,
    tiny, with_session,
};

const ALL_KV: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];
const GO_ON: [Overflow; 2] = [Overflow::Refill, Overflow::Shadow];

fn ids(count: usize, vocab: u32) -> Vec<u32> {
    let mut state = 7u64;
    let next = |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u32 % vocab
    };
    (0..count).map(next).collect()
}

fn base(model: &Gpt2<'_>) -> SessionOptions {
    SessionOptions { kv: KvType::Q8, ..SessionOptions::new(model.config()) }
}

/// What the context holds when the first `fed` tokens of a text have been read, by the definition.
fn context(text: &[u32], fed: usize, n_ctx: usize, keep: usize, tail: usize) -> Vec<u32> {
    let mut context = Vec::new();
    for &token in &text[..fed] {
        if context.len() == n_ctx {
            context = [&context[..keep], &context[n_ctx - tail..]].concat();
        }
        context.push(token);
    }
    context
}

/// Logits behind every token, fed in pieces of these sizes (the last one again and again).
fn logits(
    model: Gpt2<'_>,
    options: &SessionOptions,
    text: &[u32],
    pieces: &[usize],
    par: &dyn Parallel,
) -> Vec<Vec<u32>> {
    let mut out = Vec::new();
    with_session(model, options, |session| {
        let (mut rest, mut size) = (text, 1);
        let mut pieces = pieces.iter().copied();
        while !rest.is_empty() {
            size = pieces.next().unwrap_or(size);
            let (piece, others) = rest.split_at(size.min(rest.len()));
            session.feed_all(piece, par, &mut |_, row| out.push(bits(row))).unwrap();
            rest = others;
        }
        assert_eq!(session.fed(), text.len());
    });
    out
}

/// The logits after a context, in a session that has read nothing else.
fn fresh(model: Gpt2<'_>, options: &SessionOptions, context: &[u32]) -> Vec<u32> {
    let options = SessionOptions { overflow: Overflow::Stop, tail: None, ..*options };
    with_session(model, &options, |session| bits(session.feed(context, &Serial).unwrap()))
}

#[test]
fn a_refilled_context_is_that_of_a_fresh_session() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let n_ctx = model.config().n_ctx as usize;
    let text = ids(3 * n_ctx + 5, model.config().vocab_size);
    for overflow in GO_ON {
        for (keep, tail) in
            [(0, None), (1, None), (4, Some(7)), (31, None), (0, Some(1)), (20, Some(22))]
        {
            for kv in ALL_KV {
                let options = SessionOptions { kv, overflow, keep, tail, ..base(&model) };
                let ours = logits(model, &options, &text, &[1], &Serial);
                let tail = tail.unwrap_or((n_ctx - keep) / 2);
                for (i, ours) in ours.iter().enumerate() {
                    // All of them are much work: those around the ends of contexts, and some others.
                    let context = context(&text, i + 1, n_ctx, keep, tail);
                    let near = context.len() + 2 > n_ctx || context.len() < keep + tail + 3;
                    if near || i % 13 == 0 {
                        let spec = fresh(model, &options, &context);
                        assert!(*ours == spec, "{overflow} keep {keep} tail {tail} {kv} token {i}");
                    }
                }
            }
        }
    }
    // Tails that a shadow has no time for.
    let options =
        SessionOptions { overflow: Overflow::Refill, keep: 3, tail: Some(60), ..base(&model) };
    let ours = logits(model, &options, &text, &[1], &Serial);
    for i in (0..text.len()).step_by(7) {
        let context = context(&text, i + 1, n_ctx, 3, 60);
        assert!(ours[i] == fresh(model, &options, &context), "token {i}");
    }
}

#[test]
fn shadow_equals_refill_on_all_threads_and_instructions() {
    for (to, kvs) in [(Encoding::Q4, &ALL_KV[..]), (Encoding::F32, &ALL_KV[..1])] {
        let file = tiny(1, to);
        let text = ids(170, file.model().config().vocab_size);
        for &kv in kvs {
            let model = file.model();
            let refill = SessionOptions { kv, overflow: Overflow::Refill, keep: 2, ..base(&model) };
            let spec = logits(model, &refill, &text, &[1], &Serial);
            for isa in isas() {
                // Scalar code is slow.
                let all = if isa == Isa::Scalar { &[2][..] } else { &[1, 2, 4] };
                for &threads in all {
                    let pool = ThreadPool::new(threads).unwrap();
                    let splits = [(&[3, 8, 61, 13][..], 5), (&[170], 128), (&[1], 1)];
                    for (pieces, batch) in
                        splits.into_iter().take(if all.len() > 1 { 3 } else { 1 })
                    {
                        for overflow in GO_ON {
                            let options = SessionOptions {
                                overflow,
                                batch,
                                threads,
                                logit_rows: 5,
                                ..refill
                            };
                            let ours = logits(file.model_on(isa), &options, &text, pieces, &pool);
                            let case = format!("{overflow} {kv} {isa} {threads} {pieces:?}");
                            assert!(ours == spec, "{} {case}", to.name());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn odd_shapes_go_on_too() {
    // Contexts of 13 to 24 positions.
    for name in ["bare-names", "head-40", "n-inner-100", "f32", "inverse-layer"] {
        let path = repository("tests/fixtures/variants").join(name);
        let file = Converted::without_tokenizer(&path, Encoding::Q8);
        let model = file.model();
        let n_ctx = model.config().n_ctx as usize;
        let text = ids(5 * n_ctx, model.config().vocab_size);
        for keep in [0, 1, 3] {
            let refill = SessionOptions { overflow: Overflow::Refill, keep, ..base(&model) };
            let shadow = SessionOptions { overflow: Overflow::Shadow, ..refill };
            let spec = logits(model, &refill, &text, &[1], &Serial);
            for (i, expected) in spec.iter().enumerate() {
                let context = context(&text, i + 1, n_ctx, keep, (n_ctx - keep) / 2);
                assert!(
                    *expected == fresh(model, &refill, &context),
                    "{name} keep {keep} token {i}"
                );
            }
            for pieces in [&[1][..], &[text.len()], &[n_ctx - 2, 1, 7]] {
                assert!(logits(model, &shadow, &text, pieces, &Serial) == spec, "{name} {keep}");
            }
        }
    }
}

#[test]
fn long_texts_are_skipped_through_without_changing_a_bit() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let text = ids(500, model.config().vocab_size);
    for overflow in GO_ON {
        for (keep, window) in [(0, 64), (3, 64), (3, 20)] {
            let options = SessionOptions { overflow, keep, window, ..base(&model) };
            let spec = logits(model, &options, &text, &[1], &Serial);
            for first in [0, 1, 2, 30, 33, 34, 63, 64, 65, 95, 96, 130] {
                for len in [1, 2, 31, 62, 63, 64, 65, 97, 200, 300] {
                    let (ours, position) = with_session(model, &options, |session| {
                        if first > 0 {
                            session.feed(&text[..first], &Serial).unwrap();
                        }
                        let logits =
                            bits(session.feed(&text[first..first + len], &Serial).unwrap());
                        assert_eq!(session.fed(), first + len);
                        (logits, session.position())
                    });
                    let case = format!("{overflow} keep {keep} window {window} {first} + {len}");
                    assert!(ours == spec[first + len - 1], "{case}");
                    let tail = (64 - keep) / 2;
                    assert_eq!(position, context(&text, first + len, 64, keep, tail).len());
                }
            }
        }
    }
}

#[test]
fn a_text_goes_on_where_it_was_cut() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let text = ids(400, model.config().vocab_size);
    for overflow in GO_ON {
        let options = SessionOptions { overflow, keep: 3, ..base(&model) };
        let spec = logits(model, &options, &text, &[1], &Serial);
        with_session(model, &options, |session| {
            session.feed(&text[..150], &Serial).unwrap();
            let begun = session.fed() - session.position() + 3 + 30;
            for cut in [148, 140, begun + 1, begun, 3, 2, 0] {
                assert!(session.can_truncate(cut), "{cut} of {begun}");
                session.truncate(cut);
                let ours = bits(session.feed(&text[cut..150], &Serial).unwrap());
                assert!(ours == spec[149], "{overflow} cut at {cut}");
                session.truncate(cut);
                let ours = bits(session.feed(&text[cut..=cut], &Serial).unwrap());
                assert!(ours == spec[cut], "{overflow} cut at {cut}");
                session.feed(&text[cut + 1..150], &Serial).unwrap();
            }
            assert!(!session.can_truncate(begun - 1) && !session.can_truncate(4));
            assert!(!session.can_truncate(151));
        });
    }
}

/// Straight from the definition, in f64: the model's logits behind the last token if attention sees
/// the first `keep` positions and the last `window - keep`.
fn naive(golden: &NaiveGpt2, ids: &[u32], window: usize, keep: usize) -> Vec<f32> {
    golden.logits(ids, |query, key| key < keep || key + window - keep > query)
}

/// GPT-2 with all weights in f32, as it stands in a textbook.
struct NaiveGpt2 {
    tensors: std::collections::HashMap<String, (Vec<usize>, Vec<f64>)>,
    n_head: usize,
    n_layer: usize,
}

impl NaiveGpt2 {
    fn open(checkpoint: &std::path::Path, n_layer: usize, n_head: usize) -> Self {
        let bytes = std::fs::read(checkpoint.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, tensor)| {
            assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
            let numbers = tensor.data().as_chunks::<4>().0;
            let numbers = numbers.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect();
            let name = name.strip_prefix("transformer.").unwrap_or(&name).to_owned();
            (name, (tensor.shape().to_vec(), numbers))
        });
        Self { tensors: tensors.collect(), n_head, n_layer }
    }

    fn tensor(&self, name: &str) -> (&[usize], &[f64]) {
        let (shape, numbers) = &self.tensors[name];
        (shape, numbers)
    }

    /// `x · W + b`, with Conv1D's `[in, out]`.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (shape, weight) = self.tensor(&format!("{name}.weight"));
        let mut out = self.tensor(&format!("{name}.bias")).1.to_vec();
        for (x, row) in x.iter().zip(weight.chunks_exact(shape[1])) {
            out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
        }
        out
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let weight = self.tensor(&format!("{name}.weight")).1;
        let bias = self.tensor(&format!("{name}.bias")).1;
        let normal = |x: &f64| (x - mean) / (variance + 1e-5).sqrt();
        x.iter().zip(weight).zip(bias).map(|((x, w), b)| normal(x) * w + b).collect()
    }

    fn logits(&self, ids: &[u32], sees: impl Fn(usize, usize) -> bool) -> Vec<f32> {
        let (shape, wte) = self.tensor("wte.weight");
        let (n_embd, wpe) = (shape[1], self.tensor("wpe.weight").1);
        let hd = n_embd / self.n_head;
        let mut x: Vec<Vec<f64>> = (ids.iter().enumerate())
            .map(|(position, &id)| {
                let token = &wte[id as usize * n_embd..][..n_embd];
                token.iter().zip(&wpe[position * n_embd..]).map(|(t, p)| t + p).collect()
            })
            .collect();
        for layer in 0..self.n_layer {
            let name = |part: &str| format!("h.{layer}.{part}");
            let qkv: Vec<Vec<f64>> = (x.iter())
                .map(|x| self.linear(&name("attn.c_attn"), &self.norm(&name("ln_1"), x)))
                .collect();
            for (q, x) in x.iter_mut().enumerate() {
                let mut found = vec![0.0; n_embd];
                for head in 0..self.n_head {
                    let part = |t: usize, part: usize| &qkv[t][part * n_embd + head * hd..][..hd];
                    let dot = |k: usize| -> f64 {
                        part(q, 0).iter().zip(part(k, 1)).map(|(a, b)| a * b).sum()
                    };
                    let seen = (0..=q).filter(|&k| sees(q, k));
                    let weights: Vec<(usize, f64)> =
                        seen.map(|k| (k, (dot(k) / (hd as f64).sqrt()).exp())).collect();
                    let sum: f64 = weights.iter().map(|(_, w)| w).sum();
                    for (k, weight) in weights {
                        let out = &mut found[head * hd..][..hd];
                        out.iter_mut().zip(part(k, 2)).for_each(|(o, v)| *o += weight / sum * v);
                    }
                }
                let out = self.linear(&name("attn.c_proj"), &found);
                x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
            }
            for x in &mut x {
                let mut hidden = self.linear(&name("mlp.c_fc"), &self.norm(&name("ln_2"), x));
                for h in &mut hidden {
                    let inner = (2.0 / std::f64::consts::PI).sqrt() * (*h + 0.044715 * h.powi(3));
                    *h *= 0.5 * (1.0 + inner.tanh());
                }
                let out = self.linear(&name("mlp.c_proj"), &hidden);
                x.iter_mut().zip(out).for_each(|(x, out)| *x += out);
            }
        }
        let last = self.norm("ln_f", x.last().unwrap());
        let logit = |row: &[f64]| row.iter().zip(&last).map(|(w, x)| w * x).sum::<f64>() as f32;
        wte.chunks_exact(n_embd).map(logit).collect()
    }
}

#[test]
fn a_sliding_window_is_masked_attention() {
    let folder = tempfile::tempdir().unwrap();
    synthesize_tiny(folder.path(), 3);
    let file = Converted::new(folder.path(), Encoding::F32);
    let model = file.model();
    let golden = NaiveGpt2::open(folder.path(), 2, 2);
    let n_ctx = model.config().n_ctx as usize;
    let text = ids(150, model.config().vocab_size);
    let mut widest = 0.0f32;
    for (window, keep) in [(n_ctx, 0), (9, 0), (9, 1), (9, 8), (20, 4), (1, 0), (33, 16)] {
        let options = SessionOptions {
            kv: KvType::F32,
            window,
            keep,
            overflow: Overflow::Refill,
            ..base(&model)
        };
        let mut ours = Vec::new();
        with_session(model, &options, |session| {
            session.feed_all(&text, &Serial, &mut |_, row| ours.push(row.to_vec())).unwrap();
        });
        for i in (0..text.len()).filter(|i| i % 11 == 0 || *i + 2 > n_ctx && *i < n_ctx + 3) {
            let context = context(&text, i + 1, n_ctx, keep, (n_ctx - keep) / 2);
            let spec = naive(&golden, &context, window, keep);
            let difference = max_difference(&ours[i], &spec);
            assert!(difference < 1e-5, "window {window} keep {keep} token {i}: {difference}");
            // That it tells windows apart:
            let all = naive(&golden, &context, n_ctx, 0);
            widest = widest.max(max_difference(&all, &spec));
        }
        // The shadow slides as well.
        let shadow = SessionOptions { overflow: Overflow::Shadow, ..options };
        assert!(
            logits(model, &shadow, &text, &[5], &Serial)
                == logits(model, &options, &text, &[1], &Serial)
        );
    }
    assert!(widest > 1e-2, "{widest}");
}

fn strategies(model: &Gpt2<'_>) -> Vec<(&'static str, DecodingOptions<'static>)> {
    let plain = DecodingOptions {
        max_new_tokens: 300,
        min_new_tokens: 300,
        seed: 5,
        ..DecodingOptions::new(model.config())
    };
    let sampling = SamplingOptions {
        temperature: 0.9,
        top_k: 100,
        top_p: 0.95,
        min_p: 0.001,
        typical_p: 0.99,
    };
    let sample = DecodingOptions { strategy: Strategy::Sample(sampling), ..plain };
    let processed = DecodingOptions { repetition_penalty: 1.2, no_repeat_ngram_size: 3, ..sample };
    vec![
        ("greedy", plain),
        ("sample", sample),
        ("processors", processed),
        ("lookup", DecodingOptions { prompt_lookup_num_tokens: 10, ..plain }),
        ("sampled lookup", DecodingOptions { prompt_lookup_num_tokens: 10, ..sample }),
    ]
}

#[test]
fn generated_texts_go_on_and_are_the_same() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    for (name, options) in strategies(&model) {
        for prompt in [5, 64, 200] {
            let prompt = ids(prompt, 512);
            let run = |overflow, threads, window| {
                let pool = ThreadPool::new(threads).unwrap();
                let base = SessionOptions { threads, keep: 2, window, batch: 7, ..base(&model) };
                let options = DecodingOptions { overflow, ..options };
                let texts = generate(model, &base, &options, &prompt, &pool, &mut Quiet).unwrap();
                assert_eq!(texts.len(), 1);
                texts.into_iter().next().unwrap()
            };
            for window in [64, 25] {
                let spec = run(Overflow::Refill, 1, window);
                assert_eq!(spec.tokens.len(), 300);
                assert_eq!(spec.stop_reason, StopReason::MaxNewTokens);
                for threads in [1, 3] {
                    assert_eq!(run(Overflow::Shadow, threads, window), spec, "{name} {window}");
                }
            }
        }
    }
    // Drafts change nothing.
    let options = strategies(&model);
    let run = |options: DecodingOptions<'_>| {
        let base = SessionOptions { keep: 2, ..base(&model) };
        let options = DecodingOptions { overflow: Overflow::Shadow, ..options };
        generate(model, &base, &options, &[1, 2, 3], &Serial, &mut Quiet).unwrap()
    };
    assert_eq!(run(options[0].1), run(options[3].1));
    assert_eq!(run(options[1].1), run(options[4].1));
}

#[test]
fn processors_see_the_whole_text() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    // Each token once, though the context holds 64 of them.
    let options = DecodingOptions {
        max_new_tokens: 480,
        no_repeat_ngram_size: 1,
        eos_token_id: None,
        overflow: Overflow::Shadow,
        ..DecodingOptions::new(model.config())
    };
    let texts = generate(model, &base(&model), &options, &[1, 2, 3], &Serial, &mut Quiet).unwrap();
    let mut tokens = [&[1, 2, 3], &texts[0].tokens[..]].concat();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 483);
}

#[test]
fn stop_ends_where_the_positions_end() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let text = ids(65, 512);
    with_session(model, &base(&model), |session| {
        let full = CapacityError::ContextFull { used: 0, adding: 65, capacity: 64 };
        assert_eq!(session.feed(&text, &Serial).unwrap_err(), full);
        session.feed(&text[..64], &Serial).unwrap();
        assert_eq!((session.remaining(), session.fed(), session.position()), (0, 64, 64));
        let full = CapacityError::ContextFull { used: 64, adding: 1, capacity: 64 };
        assert_eq!(session.feed(&text[64..], &Serial).unwrap_err(), full);
    });
    let options = DecodingOptions {
        max_new_tokens: 100,
        min_new_tokens: 100,
        ..DecodingOptions::new(model.config())
    };
    let texts = generate(model, &base(&model), &options, &text[..10], &Serial, &mut Quiet).unwrap();
    assert_eq!((texts[0].tokens.len(), texts[0].stop_reason), (55, StopReason::ContextFull));
    // A session that goes on does not write more than its generator has room for.
    let session = SessionOptions { overflow: Overflow::Refill, ..base(&model) };
    let mut own = vec![
        pocketgpt_runtime::memory::Line::ZERO;
        pocketgpt_runtime::generate::Generator::lines(model.config(), &options, 10)
            .unwrap()
    ];
    let mut generator =
        pocketgpt_runtime::generate::Generator::new(model.config(), &options, 10, &mut own)
            .unwrap();
    with_session(model, &session, |session| {
        generator.run(session, &Serial, &text[..10], &mut Quiet).unwrap();
    });
    let sequence = generator.sequences().next().unwrap();
    assert_eq!((sequence.tokens.len(), sequence.stop_reason), (55, StopReason::ContextFull));
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let plan = |options: &SessionOptions| Plan::new(model.config(), options).map(|_| ());
    for overflow in GO_ON {
        let with = |keep, tail| SessionOptions { overflow, keep, tail, ..base(&model) };
        plan(&with(31, None)).unwrap();
        for keep in [32, 63, 64, usize::MAX] {
            let error = CapacityError::Keep { keep, max: 31 };
            assert_eq!(plan(&with(keep, None)), Err(error));
            assert!(error.to_string().contains("keep is") && error.to_string().contains("31"));
        }
        let most = if overflow == Overflow::Shadow { 30 } else { 59 };
        plan(&with(4, Some(most))).unwrap();
        for tail in [0, most + 1, usize::MAX] {
            let error = CapacityError::Option { name: "tail", value: tail, max: most };
            assert_eq!(plan(&with(4, Some(tail))), Err(error));
        }
        let branches = SessionOptions { branches: 2, ..with(1, None) };
        let error = CapacityError::Option { name: "branches", value: 2, max: 1 };
        assert_eq!(plan(&branches), Err(error));
        for window in [1, 2, 20] {
            let window_of = |keep| SessionOptions { window, ..with(keep, None) };
            plan(&window_of(window - 1)).unwrap();
            let error = CapacityError::Keep { keep: window, max: window - 1 };
            assert_eq!(plan(&window_of(window)), Err(error));
        }

        let plain = DecodingOptions { overflow, ..DecodingOptions::new(model.config()) };
        let contrastive = Strategy::Contrastive(ContrastiveOptions::default());
        let sample = Strategy::Sample(SamplingOptions::default());
        for options in [
            DecodingOptions { strategy: Strategy::Beam(BeamOptions::default()), ..plain },
            DecodingOptions { strategy: contrastive, ..plain },
            DecodingOptions { strategy: sample, num_return_sequences: 2, ..plain },
        ] {
            let error = generate(model, &base(&model), &options, &[1], &Serial, &mut Quiet);
            let Err(GenerateError::Decoding(DecodingError::Conflict { name, .. })) = error else {
                panic!("{error:?}")
            };
            assert_eq!(name, "overflow");
        }
    }
    // Without overflow the window alone bounds it.
    plan(&SessionOptions { keep: 63, ..base(&model) }).unwrap();
    let error = plan(&SessionOptions { keep: 64, ..base(&model) });
    assert_eq!(error, Err(CapacityError::Keep { keep: 64, max: 63 }));
}

#[test]
fn plans_tell_what_each_policy_takes() {
    let file = Converted::new(&bundled(), Encoding::Q8);
    let model = file.model();
    let plan = |overflow, window, batch| {
        let options = SessionOptions { overflow, window, batch, keep: 1, ..base(&model) };
        let plan = Plan::new(model.config(), &options).unwrap();
        assert_eq!(
            plan.total_bytes(),
            plan.kv_bytes
                + plan.shadow_bytes
                + plan.history_bytes
                + plan.scratch_bytes
                + plan.logits_bytes
                + plan.branch_bytes
        );
        // It is enough, and a line less is not.
        let mut memory = vec![pocketgpt_runtime::memory::Line::ZERO; plan.lines()];
        let text = ids(2000, model.config().vocab_size);
        {
            let mut session = Session::new(model, &options, &mut memory).unwrap();
            if overflow != Overflow::Stop {
                session.feed(&text, &Serial).unwrap();
            }
        }
        let less = plan.lines() - 1;
        let error = Session::new(model, &options, &mut memory[..less]).unwrap_err();
        assert!(matches!(error, CapacityError::Workspace { .. }));
        plan
    };
    let stop = plan(Overflow::Stop, 512, 128);
    let refill = plan(Overflow::Refill, 512, 128);
    let shadow = plan(Overflow::Shadow, 512, 128);
    assert_eq!((stop.shadow_bytes, stop.history_bytes), (0, 0));
    assert_eq!((refill.shadow_bytes, refill.history_bytes), (0, 4 * 512));
    assert_eq!((shadow.shadow_bytes, shadow.history_bytes), (stop.kv_bytes, 4 * 512));
    assert_eq!(shadow.total_bytes(), refill.total_bytes() + stop.kv_bytes);
    let narrow = plan(Overflow::Shadow, 128, 1);
    assert_eq!(narrow.shadow_bytes, stop.kv_bytes / 4);
}
