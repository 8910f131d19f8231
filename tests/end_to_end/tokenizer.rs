//! The tokenizer inside a file is the checkpoint's.

use pocketgpt_quantize::Encoding;
use pocketgpt_tests::{Converted, bundled, repository};

#[test]
fn golden_cases_through_a_converted_file() {
    let json = std::fs::read(repository("tests/data/golden/tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let file = Converted::new(&bundled(), Encoding::Q4);
    let tokenizer = file.file().tokenizer().unwrap().expect("has a tokenizer");
    let mut compared = 0;
    for case in json["cases"].as_array().unwrap().iter().filter(|c| c["tokenizer"] == "model") {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode_to_vec(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode_to_string(&ids), case["decoded"].as_str().unwrap());
        compared += 1;
    }
    assert!(compared >= 20);
}
