//! GPT-2's byte-level BPE in both of its forms; everything else is refused by name.

mod checkpoint;

use std::path::Path;

use checkpoint::write_tokenizer;
use pocketgpt_quantize::tokenizer::{self, TokenizerSection};
use pocketgpt_quantize::{ConvertError, ConvertOptions, TokenizerChoice, convert};
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde_json::{Value, json};

fn write(folder: &Path, name: &str, value: &Value) {
    std::fs::write(folder.join(name), value.to_string()).unwrap();
}

fn read(folder: &Path) -> Result<TokenizerSection, String> {
    tokenizer::read(folder).map_err(|error| {
        let text = error.to_string();
        assert!(!text.contains('\n') && text.contains(folder.to_str().unwrap()), "{text}");
        text
    })
}

#[test]
fn both_forms_and_both_ways_to_write_merges_make_the_same_section() {
    let folder = tempfile::tempdir().unwrap();
    let mut json = write_tokenizer(folder.path(), 300);
    let section = read(folder.path()).unwrap();
    assert_eq!(section.vocab_size, 300);

    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect();
    json["model"]["merges"] = json!(merges);
    // Early versions of the library that writes these files did not name the model's type.
    json["model"].as_object_mut().unwrap().remove("type");
    write(folder.path(), "tokenizer.json", &json);
    assert!(read(folder.path()).unwrap().bytes == section.bytes);

    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    write(folder.path(), "vocab.json", &json["model"]["vocab"]);
    let text = format!("#version: 0.2\n{}\n", merges.join("\n"));
    std::fs::write(folder.path().join("merges.txt"), text).unwrap();
    let parted = read(folder.path()).unwrap();
    assert!(parted.bytes == section.bytes);
    let view = TokenizerView::new(&parted.bytes).unwrap();
    assert_eq!(view.special_id("<|endoftext|>"), Some(299));
}

#[test]
fn bundled_model_has_the_same_tokenizer_in_both_forms() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model");
    let folder = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        std::fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    assert!(read(folder.path()).unwrap().bytes == read(&model).unwrap().bytes);
}

#[test]
fn added_tokens_beside_the_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let json = write_tokenizer(folder.path(), 300);
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    write(folder.path(), "vocab.json", &json["model"]["vocab"]);
    std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\n").unwrap();
    write(folder.path(), "added_tokens.json", &json!({ "<pad>": 300 }));
    let config = json!({
        "add_prefix_space": true,
        "added_tokens_decoder": { "301": { "content": "<sep>", "special": true } },
    });
    write(folder.path(), "tokenizer_config.json", &config);
    let section = read(folder.path()).unwrap();
    assert_eq!(section.vocab_size, 302);
    let view = TokenizerView::new(&section.bytes).unwrap();
    assert!(view.add_prefix_space());
    assert_eq!(view.special_id("<sep>"), Some(301));
    assert_eq!(view.special_id("<pad>"), None);
    assert_eq!(view.token_bytes(300), Some(&b"<pad>"[..]));
}

#[test]
fn templates_that_add_nothing_are_taken_and_others_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut json = write_tokenizer(folder.path(), 300);
    let expected = read(folder.path()).unwrap().bytes;
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let token = json!({ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } });
    let template = |parts: &[&Value]| json!({ "type": "TemplateProcessing", "single": parts });
    let sequence = |part: Value| json!({ "type": "Sequence", "processors": [part] });
    for post in [Value::Null, template(&[&text]), sequence(template(&[&text]))] {
        json["post_processor"] = post;
        write(folder.path(), "tokenizer.json", &json);
        assert!(read(folder.path()).unwrap().bytes == expected);
    }
    for post in [template(&[&token, &text]), sequence(template(&[&token, &text]))] {
        json["post_processor"] = post;
        write(folder.path(), "tokenizer.json", &json);
        assert!(read(folder.path()).unwrap_err().contains("adds tokens"));
    }
}

#[test]
fn refuses_other_kinds_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let good = write_tokenizer(folder.path(), 300);
    let cases: [(&str, Value, &str); 13] = [
        ("/model/type", json!("Unigram"), "model type Unigram"),
        ("/model/byte_fallback", json!(true), "byte_fallback"),
        ("/model/ignore_merges", json!(true), "ignore_merges"),
        ("/model/dropout", json!(0.1), "dropout"),
        ("/model/end_of_word_suffix", json!("</w>"), "end_of_word_suffix"),
        ("/model/merges", json!(["a b c"]), "\"a b c\" is not two tokens"),
        ("/model/merges", json!([["x", "x"]]), "\"xx\""),
        ("/model/vocab", json!({ "a": 0 }), "0x00"),
        ("/normalizer", json!({ "type": "NFC" }), "normalizer NFC"),
        ("/pre_tokenizer", json!({ "type": "Whitespace" }), "pre_tokenizer Whitespace"),
        ("/pre_tokenizer", Value::Null, "no ByteLevel pre_tokenizer"),
        ("/pre_tokenizer/use_regex", json!(false), "regex"),
        ("/post_processor", json!({ "type": "Bert" }), "post_processor Bert"),
    ];
    for (pointer, value, expected) in cases {
        let mut json = good.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        write(folder.path(), "tokenizer.json", &json);
        let error = read(folder.path()).unwrap_err();
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    std::fs::write(folder.path().join("tokenizer.json"), "{").unwrap();
    read(folder.path()).unwrap_err();
}

#[test]
fn a_missing_tokenizer_tells_how_to_go_on() {
    let checkpoint = checkpoint::Checkpoint::new();
    checkpoint.write();
    let output = checkpoint.output();
    let options = ConvertOptions::default();
    let error = convert(checkpoint.folder.path(), &output, &options, &mut ()).unwrap_err();
    assert!(matches!(error, ConvertError::NoTokenizer { .. }));
    assert!(error.to_string().contains("--no-tokenizer"));

    let other = tempfile::tempdir().unwrap();
    write_tokenizer(other.path(), 300);
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::From(other.path().into()),
        ..ConvertOptions::default()
    };
    let error = convert(checkpoint.folder.path(), &output, &options, &mut ()).unwrap_err();
    assert!(matches!(error, ConvertError::TokenizerTooLarge { found: 300, vocab_size: 33, .. }));
}
