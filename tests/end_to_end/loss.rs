//! What quantization costs, by the protocol of `data/golden/perplexity.json`.

use pocketgpt_quantize::{CalibrationText, ConvertOptions, Encoding, Method};
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, bundled, repository, with_session};

/// The tokens of the protocol: each document behind an end-of-text token.
fn stream(model: &Gpt2<'_>, text: &str) -> Vec<u32> {
    let tokenizer = model.file().tokenizer().unwrap().expect("has a tokenizer");
    let eos = model.config().eos_token_id.expect("has an end of text");
    let mut ids = Vec::new();
    for document in text.split("<|endoftext|>").map(|d| d.trim_matches('\n')) {
        if !document.is_empty() {
            ids.push(eos);
            ids.extend(tokenizer.encode_to_vec(document));
        }
    }
    ids
}

fn perplexity(model: Gpt2<'_>, text: &str, kv: KvType) -> (f64, usize) {
    let ids = stream(&model, text);
    let pool = ThreadPool::new(2).unwrap();
    let options =
        SessionOptions { kv, threads: 2, logit_rows: 64, ..SessionOptions::new(model.config()) };
    let (mut nats, mut scored) = (0.0, 0);
    with_session(model, &options, |session| {
        for window in ids.chunks(model.config().n_ctx as usize) {
            session.truncate(0);
            let mut each = |i: usize, logits: &[f32]| {
                if let Some(&next) = window.get(i + 1) {
                    let max = logits.iter().fold(f32::MIN, |a, &b| a.max(b));
                    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
                    nats += sum.ln() - f64::from(logits[next as usize] - max);
                    scored += 1;
                }
            };
            session.feed_all(window, &pool, &mut each).unwrap();
        }
    });
    ((nats / scored as f64).exp(), scored)
}

#[test]
fn perplexity_stays_within_its_bounds() {
    let golden = std::fs::read(repository("tests/data/golden/perplexity.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&golden).unwrap();
    let reference = golden["perplexity"].as_f64().unwrap();
    let text = std::fs::read_to_string(repository("tests/data/text/valid.txt")).unwrap();
    let gptq = Method::Gptq { text: CalibrationText::BuiltIn, tokens: Some(16_384) };
    for (to, method, kv, bound) in [
        (Encoding::F32, Method::Rtn, KvType::F32, 0.0001),
        (Encoding::Q8, Method::Rtn, KvType::Q8, 0.001),
        (Encoding::Q4, Method::Rtn, KvType::Q8, 0.02),
        (Encoding::Q4, gptq.clone(), KvType::Q8, 0.008),
        (Encoding::Q3, gptq, KvType::Q8, 0.03),
    ] {
        let options = ConvertOptions { to, method, ..ConvertOptions::default() };
        let file = Converted::with(&bundled(), &options);
        let (ours, scored) = perplexity(file.model(), &text, kv);
        assert_eq!(scored as u64, golden["scored_tokens"].as_u64().unwrap());
        let ratio = ours / reference - 1.0;
        println!("{} with {kv} cache: {ours:.4}, {:+.4} %", to.name(), 100.0 * ratio);
        assert!(ratio < bound && ratio > -0.001, "{}: {ours}", to.name());
        if to == Encoding::F32 {
            assert!(ratio.abs() < bound, "{ours}");
        }
    }
}
