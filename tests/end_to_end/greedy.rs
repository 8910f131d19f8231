//! Greedy texts equal those of transformers, token by token.

use std::ops::ControlFlow;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::generate::{GenerateOptions, StopReason, generate};
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::sampling::{Candidate, Sampler, Strategy};
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, bundled, repository, with_session};
use serde_json::Value;

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn greedy(
    model: Gpt2<'_>,
    prompt: &[u32],
    max_new_tokens: usize,
    repetition_penalty: f32,
) -> (Vec<u32>, StopReason) {
    let vocab = model.config().vocab_size as usize;
    let mut candidates = vec![Candidate::default(); vocab];
    let mut values = vec![0.0; vocab];
    let mut sampler =
        Sampler::new(Strategy::Greedy, repetition_penalty, 0, &mut candidates, &mut values)
            .unwrap();
    let mut history = vec![0; model.config().n_ctx as usize];
    let options = GenerateOptions { max_new_tokens, eos_token_id: model.config().eos_token_id };
    let mut out = Vec::new();
    let reason = with_session(model, &SessionOptions::new(model.config()), |session| {
        let sink = |token| {
            out.push(token);
            ControlFlow::Continue(())
        };
        generate(session, &Serial, &mut sampler, &mut history, prompt, &options, sink).unwrap()
    });
    (out, reason)
}

#[test]
fn greedy_cases_equal_transformers() {
    let json = std::fs::read(repository("tests/data/golden/decoding.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let file = Converted::new(&bundled(), Encoding::F32);
    let mut compared = 0;
    for case in json["cases"].as_array().unwrap() {
        let options = case["options"].as_object().unwrap();
        let known = ["max_new_tokens", "do_sample", "repetition_penalty"];
        let name = case["name"].as_str().unwrap();
        if !name.starts_with("greedy-") || !options.keys().all(|key| known.contains(&key.as_str()))
        {
            continue;
        }
        let penalty = options.get("repetition_penalty").map_or(1.0, |p| p.as_f64().unwrap());
        let max_new_tokens = options["max_new_tokens"].as_u64().unwrap() as usize;
        let prompt = ids(&case["prompt_ids"]);
        let (ours, _) = greedy(file.model(), &prompt, max_new_tokens, penalty as f32);
        let mut expected = ids(&case["sequences"][0]);
        // transformers keeps the token that ends the text; the token loop does not pass it on.
        expected.truncate(expected.iter().position(|&id| id == 4095).unwrap_or(expected.len()));
        assert_eq!(ours, expected, "{name}");
        compared += 1;
    }
    assert_eq!(compared, 8, "four prompts, with and without repetition penalty");
}

#[test]
fn generation_stops_when_the_context_is_full() {
    let file = Converted::new(&bundled(), Encoding::Q8);
    let prompt = vec![11; 500];
    // 512 positions hold the prompt and 12 tokens; one more token follows the last of them.
    let (text, reason) = greedy(file.model(), &prompt, 1000, 1.0);
    assert_eq!((text.len(), reason), (13, StopReason::ContextFull));
}
