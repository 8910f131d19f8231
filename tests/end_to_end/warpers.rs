//! The distributions that tokens are drawn from equal those of transformers.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    Candidate, Context, DecodingOptions, Sampler, SamplingOptions, Strategy,
};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_tests::{Converted, Golden, bundled, isas, repository};
use serde_json::Value;

fn sampling(options: &Value) -> SamplingOptions {
    let mut out = SamplingOptions::default();
    for (key, value) in options.as_object().unwrap() {
        let number = value.as_f64().unwrap();
        match &**key {
            "temperature" => out.temperature = number as f32,
            "top_k" => out.top_k = number as u32,
            "top_p" => out.top_p = number as f32,
            "min_p" => out.min_p = number as f32,
            "typical_p" => out.typical_p = number as f32,
            _ => panic!("unknown option {key}"),
        }
    }
    out
}

/// Tokens with their probabilities, most probable first.
fn distribution(isa: Isa, options: &DecodingOptions<'_>, logits: &[f32]) -> Vec<(u32, f32)> {
    let mut scores = vec![0.0; logits.len()];
    let mut candidates = vec![Candidate::default(); logits.len()];
    let mut sampler = Sampler::new(options, &mut scores, &mut candidates).unwrap();
    let context = Context { text: &[], new_tokens: 0 };
    let mut out = Vec::new();
    let kernels = Kernels::for_isa(isa).unwrap();
    sampler.distribution(&kernels, logits, context, |token, p| out.push((token, p))).unwrap();
    out.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    out
}

#[test]
fn distributions_equal_transformers() {
    let golden = Golden::open(&repository("tests/data/golden/forward.safetensors"));
    let all = golden.f32s("logits");
    let json = std::fs::read(repository("tests/data/golden/warpers.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let file = Converted::new(&bundled(), Encoding::Q8);
    let vocab = file.model().config().vocab_size as usize;
    let cases = json["cases"].as_array().unwrap();
    for case in cases {
        let position = case["position"].as_u64().unwrap() as usize;
        let logits = &all[position * vocab..][..vocab];
        let options = DecodingOptions {
            strategy: Strategy::Sample(sampling(&case["options"])),
            ..DecodingOptions::new(file.model().config())
        };
        let ours = distribution(Isa::Scalar, &options, logits);
        let name = format!("position {position}, {}", case["options"]);
        assert_eq!(ours.len() as u64, case["kept"].as_u64().unwrap(), "{name}");
        let ids = case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
        let probabilities = case["probabilities"].as_array().unwrap();
        for (((id, p), expected_id), expected) in ours.iter().zip(ids).zip(probabilities) {
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*p) - expected).abs() < 1e-6, "{name}, token {id}: {p} {expected}");
            assert_eq!(*id, expected_id, "{name}");
        }
        let sum: f64 = ours.iter().map(|(_, p)| f64::from(*p)).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
        for isa in isas() {
            assert_eq!(distribution(isa, &options, logits), ours, "{name} {isa}");
        }
    }
    assert_eq!(cases.len(), 40);
}
