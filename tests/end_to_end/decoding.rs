//! Texts equal those of transformers, token by token, with every strategy.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, EarlyStopping, SequenceBias, StopReason,
    StopTexts, Strategy,
};
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Quiet, Text, bundled, generate, part_of, repository};
use serde_json::{Map, Value};

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// For as long as the test runs.
fn leak<T>(x: T) -> &'static T {
    Box::leak(Box::new(x))
}

fn biases(value: &Value) -> &'static [SequenceBias<'static>] {
    let bias = |pair: &Value| SequenceBias {
        tokens: leak(ids(&pair[0])),
        // JSON has no infinity.
        bias: pair[1].as_f64().map_or(f32::NEG_INFINITY, |bias| bias as f32),
    };
    leak(value.as_array().unwrap().iter().map(bias).collect::<Vec<_>>())
}

fn stops(model: &Gpt2<'static>, value: &Value) -> &'static StopTexts<'static> {
    let texts = leak(value.clone()).as_array().unwrap().iter();
    let texts: Vec<&'static str> = texts.map(|text| text.as_str().unwrap()).collect();
    leak(StopTexts::new(model.file().tokenizer().unwrap().unwrap(), leak(texts)))
}

/// What transformers calls these options.
fn options(model: &Gpt2<'static>, given: &Map<String, Value>) -> DecodingOptions<'static> {
    let mut options = DecodingOptions::new(model.config());
    let mut beam = BeamOptions { num_beams: 1, ..BeamOptions::default() };
    let mut contrastive = ContrastiveOptions { penalty_alpha: 0.0, top_k: 0 };
    for (key, value) in given {
        let (float, count) = (|| value.as_f64().unwrap() as f32, || value.as_u64().unwrap());
        match &**key {
            "max_new_tokens" => options.max_new_tokens = count() as usize,
            "min_new_tokens" => options.min_new_tokens = count() as usize,
            "num_return_sequences" => options.num_return_sequences = count() as usize,
            "repetition_penalty" => options.repetition_penalty = float(),
            "no_repeat_ngram_size" => options.no_repeat_ngram_size = count() as usize,
            "eos_token_id" => options.eos_token_id = Some(count() as u32),
            "num_beams" => beam.num_beams = count() as usize,
            "length_penalty" => beam.length_penalty = float(),
            "early_stopping" => {
                beam.early_stopping = match value {
                    Value::Bool(false) => EarlyStopping::False,
                    Value::Bool(true) => EarlyStopping::True,
                    _ => EarlyStopping::Never,
                }
            }
            "sequence_bias" => options.sequence_bias = biases(value),
            "stop_strings" => options.stop = Some(stops(model, value)),
            "penalty_alpha" => contrastive.penalty_alpha = float(),
            "top_k" => contrastive.top_k = count() as usize,
            "do_sample" => assert_eq!(*value, Value::Bool(false)),
            _ => panic!("unknown option {key}"),
        }
    }
    if given.contains_key("penalty_alpha") {
        options.strategy = Strategy::Contrastive(contrastive);
    } else if given.contains_key("num_beams") {
        options.strategy = Strategy::Beam(beam);
    }
    options
}

fn run(model: Gpt2<'_>, options: &DecodingOptions<'_>, prompt: &[u32]) -> Vec<Text> {
    let base = SessionOptions::new(model.config());
    generate(model, &base, options, prompt, &Serial, &mut Quiet).unwrap()
}

fn compare(file: Converted, golden: &str) -> usize {
    let json = std::fs::read(repository(golden)).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let model = leak(file).model();
    let cases = json["cases"].as_array().unwrap();
    for case in part_of(cases) {
        let name = format!("{} {}", case["options"], case["prompt_ids"]);
        let options = options(&model, case["options"].as_object().unwrap());
        let ours = run(model, &options, &ids(&case["prompt_ids"]));
        let sequences = case["sequences"].as_array().unwrap();
        assert_eq!(ours.len(), sequences.len(), "{name}");
        for (i, (ours, expected)) in ours.iter().zip(sequences).enumerate() {
            let mut expected = ids(expected);
            // transformers keeps the token that ends the text.
            let ended = expected.pop_if(|last| Some(*last) == options.eos_token_id).is_some();
            assert_eq!(ours.tokens, expected, "{name} {i}");
            assert_eq!(ours.stop_reason == StopReason::EndOfText, ended, "{name} {i}");
            if let Some(score) = ours.score
                && let Some(scores) = case["sequence_scores"].as_array()
            {
                let expected = scores[i].as_f64().unwrap();
                let difference = (f64::from(score) - expected).abs();
                assert!(
                    difference < 1e-3 * expected.abs().max(1.0),
                    "{name} {i}: {score} {expected}"
                );
            }
        }
    }
    cases.len()
}

#[test]
fn texts_equal_transformers() {
    let file = Converted::new(&bundled(), Encoding::F32);
    assert_eq!(compare(file, "tests/data/golden/decoding.json"), 44);
}

#[test]
fn early_ends_equal_transformers() {
    let file = Converted::new(&bundled(), Encoding::F32);
    assert_eq!(compare(file, "tests/fixtures/decoding/bundled.json"), 225);
}

#[test]
fn more_beams_than_tokens_equal_transformers() {
    let small = repository("tests/fixtures/decoding/small");
    let file = Converted::without_tokenizer(&small, Encoding::F32);
    assert_eq!(compare(file, "tests/fixtures/decoding/small.json"), 108);
}

#[test]
fn generation_stops_when_the_context_is_full() {
    let file = Converted::new(&bundled(), Encoding::Q8);
    let prompt = vec![11; 500];
    // 512 positions hold the prompt and 12 tokens; one more token follows the last of them.
    let mut options =
        DecodingOptions { max_new_tokens: 1000, ..DecodingOptions::new(file.model().config()) };
    for (strategy, len) in [
        (Strategy::Greedy, 13),
        (Strategy::Sample(Default::default()), 13),
        (Strategy::Beam(BeamOptions::default()), 13),
        // A candidate has to be read before it is chosen.
        (Strategy::Contrastive(ContrastiveOptions::default()), 12),
    ] {
        options.strategy = strategy;
        options.eos_token_id = None;
        for text in run(file.model(), &options, &prompt) {
            let found = (text.tokens.len(), text.stop_reason);
            assert_eq!(found, (len, StopReason::ContextFull), "{strategy:?}");
        }
    }
}
