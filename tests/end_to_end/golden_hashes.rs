//! Logits have the same bits on every machine: `tests/data/golden/hashes.json`, written by one of
//! them, holds on all others.
//!
//! After a change that is meant to change the bits, `POCKETGPT_BLESS=1` writes the file anew from
//! what the specification (`--isa scalar`) computes.

use std::path::PathBuf;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Quiet, bundled, generate, isas, repository, with_session};
use serde_json::{Value, json};

/// Tokens that go through the layers together: a number that fills no kernel's tiles.
const PREFILL: usize = 11;
/// Tokens that come one by one after them.
const DECODE: usize = 3;
/// Tokens of a text.
const TEXT: usize = 8;

fn golden_file() -> PathBuf {
    repository("tests/data/golden/hashes.json")
}

/// CRC-32 of the logits' bits, little-endian, of all rows one after the other.
#[derive(Default)]
struct Hash(crc32fast::Hasher);

impl Hash {
    fn add(&mut self, logits: &[f32]) {
        logits.iter().for_each(|x| self.0.update(&x.to_le_bytes()));
    }

    fn hex(self) -> Value {
        format!("{:08x}", self.0.finalize()).into()
    }
}

/// What a model computes after the first tokens of a fixed sequence.
fn hashes(model: Gpt2<'_>, kv: KvType) -> Value {
    let vocab_size = model.config().vocab_size;
    // Fewer where the model has fewer positions.
    let len = (PREFILL + DECODE).min(model.config().n_ctx as usize);
    let ids: Vec<u32> = (0..len as u32).map(|i| (i * 37 + 11) % vocab_size).collect();
    let (first, rest) = ids.split_at(PREFILL.min(len - 1));
    let options = SessionOptions { kv, logit_rows: 5, ..SessionOptions::new(model.config()) };
    let (mut prefill, mut decode) = (Hash::default(), Hash::default());
    with_session(model, &options, |session| {
        session.feed_all(first, &Serial, &mut |_, row| prefill.add(row)).unwrap();
        for &id in rest {
            decode.add(session.feed(&[id], &Serial).unwrap());
        }
    });
    json!({ "prefill": prefill.hex(), "decode": decode.hex() })
}

/// What a model writes: the most probable tokens, and tokens drawn with a seed.
fn texts(model: Gpt2<'_>, kv: KvType) -> Value {
    let tokenizer = model.file().tokenizer().unwrap().expect("the bundled model has a tokenizer");
    let prompt: Vec<u32> = vec![3478, 813, 258];
    let base = SessionOptions { kv, ..SessionOptions::new(model.config()) };
    let write = |strategy| {
        let options = DecodingOptions {
            strategy,
            max_new_tokens: TEXT,
            seed: 1,
            ..DecodingOptions::new(model.config())
        };
        let texts = generate(model, &base, &options, &prompt, &Serial, &mut Quiet).unwrap();
        let tokens = texts[0].tokens.iter();
        let bytes: Vec<u8> =
            tokens.flat_map(|&id| tokenizer.token_bytes(id).unwrap()).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let sampling = SamplingOptions { top_p: 0.9, ..SamplingOptions::default() };
    json!({ "greedy": write(Strategy::Greedy), "sampled": write(Strategy::Sample(sampling)) })
}

fn merged(mut a: Value, b: Value) -> Value {
    a.as_object_mut().unwrap().extend(b.as_object().unwrap().clone());
    a
}

/// Files with the ways in which keys and values are kept, by name.
fn files() -> Vec<(String, Converted, &'static [KvType])> {
    const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];
    let mut files = Vec::new();
    for (to, kvs) in [
        (Encoding::Q8, &ALL[..]),
        (Encoding::Q4, &ALL),
        (Encoding::Q3, &ALL[2..]),
        (Encoding::F32, &ALL[..1]),
        (Encoding::F16, &ALL[1..2]),
    ] {
        files.push((format!("bundled {}", to.name()), Converted::new(&bundled(), to), kvs));
    }
    // Heads of 40, inputs that fill no group of 32.
    for to in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let file = Converted::without_tokenizer(&repository("tests/fixtures/variants/head-40"), to);
        files.push((format!("head-40 {}", to.name()), file, &ALL[2..]));
    }
    files
}

/// Every case on one instruction set, by name.
fn compute(files: &[(String, Converted, &[KvType])], isa: Isa) -> Value {
    let mut out = json!({});
    for (name, file, kvs) in files {
        let model = file.model_on(isa);
        for &kv in *kvs {
            let mut case = hashes(model, kv);
            if kv == KvType::Q8 && model.file().tokenizer().unwrap().is_some() {
                case = merged(case, texts(model, kv));
            }
            out[format!("{name} kv {kv}")] = case;
        }
    }
    let bytes = MappedFile::open(&repository("tests/data/format/v1-tiny.pgpt")).unwrap();
    let kernels = Kernels::for_isa(isa).expect("asked for what is available");
    let model = Gpt2::new(WeightFile::new(bytes.bytes()).unwrap(), kernels);
    out["v1-tiny.pgpt kv f16"] = hashes(model, KvType::F16);
    out
}

#[test]
fn logits_and_texts_have_the_committed_bits() {
    let files = files();
    if std::env::var_os("POCKETGPT_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&compute(&files, Isa::Scalar)).unwrap();
        std::fs::write(golden_file(), text + "\n").unwrap();
    }
    let golden: Value = serde_json::from_slice(&std::fs::read(golden_file()).unwrap()).unwrap();
    let golden = golden.as_object().unwrap();
    let mut covered = Vec::new();
    for isa in isas() {
        let ours = compute(&files, isa);
        let ours = ours.as_object().unwrap();
        assert_eq!(ours.keys().collect::<Vec<_>>(), golden.keys().collect::<Vec<_>>());
        for (case, value) in ours {
            assert_eq!(value, &golden[case], "{isa}: {case}");
        }
        covered.push(isa.name());
    }
    println!("golden hashes: {} cases on {}", golden.len(), covered.join(", "));
}
