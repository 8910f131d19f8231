//! The same bits on every instruction set, thread count and batch split.

use std::fs;
use std::path::{Path, PathBuf};

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::{Parallel, Serial};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Golden, bits, bundled, isas, repository, with_session};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Logits after every token, fed in pieces of these sizes (the last one again and again).
fn logits(
    model: Gpt2<'_>,
    ids: &[u32],
    kv: KvType,
    par: &dyn Parallel,
    pieces: &[usize],
    batch: usize,
) -> Vec<u32> {
    let options = SessionOptions {
        kv,
        batch,
        threads: par.threads(),
        logit_rows: 5,
        ..SessionOptions::new(model.config())
    };
    let mut out = Vec::new();
    with_session(model, &options, |session| {
        let (mut rest, mut pieces) = (ids, pieces.iter().copied());
        let mut size = 1;
        while !rest.is_empty() {
            size = pieces.next().unwrap_or(size);
            let (piece, others) = rest.split_at(size.min(rest.len()));
            session.feed_all(piece, par, &mut |_, row| out.extend(bits(row))).unwrap();
            rest = others;
        }
    });
    out
}

/// Logits after every token, each from a cache that starts empty.
fn logits_without_cache(model: Gpt2<'_>, ids: &[u32], kv: KvType) -> Vec<u32> {
    let options = SessionOptions { kv, ..SessionOptions::new(model.config()) };
    let mut out = Vec::new();
    with_session(model, &options, |session| {
        for n in 1..=ids.len() {
            session.truncate(0);
            out.extend(bits(session.feed(&ids[..n], &Serial).unwrap()));
        }
    });
    out
}

fn check(name: &str, file: &Converted, kvs: &[KvType], ids: &[u32]) {
    for &kv in kvs {
        let scalar = file.model_on(Isa::Scalar);
        let spec = logits(scalar, ids, kv, &Serial, &[1], 1);
        assert!(spec.iter().all(|&x| f32::from_bits(x).is_finite()), "{name}");
        for isa in isas() {
            let model = file.model_on(isa);
            for threads in [1, 2, 4] {
                let pool = ThreadPool::new(threads).unwrap();
                let splits = [(&[1][..], 1), (&[ids.len()], 128), (&[3, 8, 1, 13], 5)];
                // Scalar code is slow: more threads get one split each.
                let skipped = if isa == Isa::Scalar { threads / 2 } else { 0 };
                for (pieces, batch) in splits.into_iter().skip(skipped) {
                    let ours = logits(model, ids, kv, &pool, pieces, batch);
                    assert!(ours == spec, "{name} {kv} {isa} {threads} threads, pieces {pieces:?}");
                }
            }
        }
        assert!(logits_without_cache(file.model(), ids, kv) == spec, "{name} {kv} without cache");
    }
}

#[test]
fn bundled_model() {
    let golden = Golden::open(&repository("tests/data/golden/forward.safetensors"));
    let ids = &golden.ids("input_ids")[..29];
    let all = [KvType::F32, KvType::F16, KvType::Q8];
    for (to, kvs) in [
        (Encoding::Q8, &all[2..]),
        (Encoding::Q4, &all),
        (Encoding::Q3, &all[2..]),
        (Encoding::F32, &all[..1]),
        (Encoding::F16, &all[1..2]),
    ] {
        check(to.name(), &Converted::new(&bundled(), to), kvs, ids);
    }
}

#[test]
fn odd_shapes() {
    // Odd vocabularies, inputs that fill no group of 32, heads of 40 and 128.
    for name in ["head-40", "n-inner-100", "head-128", "f32", "inverse-layer", "gelu", "silu"] {
        let path = repository("tests/fixtures/variants").join(name);
        let ids = Golden::open(&path.join("expected.safetensors")).ids("input_ids");
        for to in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
            let kvs = [KvType::F32, KvType::F16, KvType::Q8];
            check(name, &Converted::without_tokenizer(&path, to), &kvs, &ids);
        }
    }
}

/// Long enough that threads take whole tokens instead of rows of a matrix.
#[test]
fn a_long_prompt_does_not_depend_on_threads_and_batches() {
    let ids: Vec<u32> = (0..250).map(|i| (i * 37 + 11) % 4095).collect();
    for (to, kv) in [(Encoding::Q4, KvType::Q8), (Encoding::Q8, KvType::F16)] {
        let file = Converted::new(&bundled(), to);
        let run = |isa, threads, batch| {
            let model = file.model_on(isa);
            let options =
                SessionOptions { kv, batch, threads, ..SessionOptions::new(model.config()) };
            let pool = ThreadPool::new(threads).unwrap();
            let mut out = Vec::new();
            with_session(model, &options, |session| {
                out = bits(session.feed(&ids, &pool).unwrap());
            });
            out
        };
        let spec: Vec<u32> = run(Isa::best(), 1, 1);
        for isa in isas() {
            for (threads, batch) in [(1, 128), (2, 250), (3, 250), (4, 128)] {
                // Scalar code is slow: once is enough.
                if isa != Isa::Scalar || threads == 3 {
                    assert!(run(isa, threads, batch) == spec, "{to:?} {isa} {threads} threads");
                }
            }
        }
    }
}

/// The last block is completed for the last token alone, and stores the keys and values of all.
#[test]
fn asking_for_the_last_token_alone_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // 120 inputs: a query's last numbers share a record of the matrix with a key's first ones.
    let head_40 = with_more_positions("head-40", &folder.path().join("head-40-longer"));
    for file in [
        Converted::without_tokenizer(&head_40, Encoding::Q8),
        Converted::without_tokenizer(&head_40, Encoding::F32),
        Converted::new(&bundled(), Encoding::Q8),
        Converted::new(&bundled(), Encoding::F32),
    ] {
        let config = *file.model().config();
        let ids: Vec<u32> = (0..90).map(|i| (i * 37 + 11) % config.vocab_size).collect();
        let (prompt, behind) = ids.split_at(ids.len() - 3);
        let run = |isa, threads, batch, all: bool| {
            let model = file.model_on(isa);
            let kv = KvType::Q8;
            let options = SessionOptions { kv, batch, threads, ..SessionOptions::new(&config) };
            let pool = ThreadPool::new(threads).unwrap();
            let mut out = Vec::new();
            with_session(model, &options, |session| {
                if all {
                    session.feed_all(prompt, &pool, &mut |_, row| out = bits(row)).unwrap();
                } else {
                    out = bits(session.feed(prompt, &pool).unwrap());
                }
                // Keys and values of all tokens are seen by those that follow.
                for &id in behind {
                    out.extend(bits(session.feed(&[id], &pool).unwrap()));
                }
            });
            out
        };
        for isa in isas() {
            let spec = run(isa, 1, 64, true);
            for (threads, batch) in [(1, 64), (1, 2), (2, 90), (4, 29), (4, 1)] {
                // Scalar code is slow: once is enough.
                if isa != Isa::Scalar || threads == 2 {
                    let ours = run(isa, threads, batch, false);
                    let width = config.n_embd;
                    assert!(ours == spec, "{width} wide, {isa} {threads} threads, batch {batch}");
                }
            }
        }
    }
}

/// A fixture with its positions repeated until there are 128, which it takes for threads to share a
/// prompt by tokens.
fn with_more_positions(name: &str, folder: &Path) -> PathBuf {
    const WPE: &str = "transformer.wpe.weight";
    let fixture = repository("tests/fixtures/variants").join(name);
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(fixture.join("config.json")).unwrap()).unwrap();
    config["n_positions"] = 128.into();
    let bytes = fs::read(fixture.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let wpe = tensors.tensor(WPE).unwrap();
    let [positions, n_embd] = wpe.shape() else { panic!("a matrix") };
    let rows = wpe.data().repeat(128 / positions);
    let longer = TensorView::new(wpe.dtype(), vec![128, *n_embd], &rows).unwrap();
    let all = tensors.iter().map(|(name, tensor)| match name {
        WPE => (name, longer.clone()),
        _ => (name, tensor),
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    safetensors::serialize_to_file(all, None, &folder.join("model.safetensors")).unwrap();
    folder.to_path_buf()
}

#[test]
fn a_sliding_window_does_not_depend_on_batches() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let ids: Vec<u32> = (0..150).map(|i| (i * 37 + 11) % 4095).collect();
    let run = |isa, batch, pieces: &[usize]| {
        let model = file.model_on(isa);
        let options = SessionOptions {
            kv: KvType::Q8,
            window: 50,
            batch,
            ..SessionOptions::new(model.config())
        };
        let mut out = Vec::new();
        with_session(model, &options, |session| {
            let mut rest = &ids[..];
            for &size in pieces {
                let (piece, others) = rest.split_at(size);
                out.extend(bits(session.feed(piece, &Serial).unwrap()));
                rest = others;
            }
            out.extend(bits(session.feed(rest, &Serial).unwrap()));
        });
        out
    };
    let spec = run(Isa::Scalar, 1, &[40, 7, 5]);
    for isa in isas() {
        assert!(run(isa, 64, &[40, 7, 5]) == spec, "{isa}");
    }
}
