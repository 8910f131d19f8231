//! Checkpoints made to do harm: what is longer, deeper, more or further away than a GPT-2 can need
//! is refused in one short line, before it takes memory or leads outside of the folder.

mod checkpoint;

use std::fs::{self, File};
use std::io::Write;

use checkpoint::{Checkpoint, write_safetensors, write_tokenizer};
use pocketgpt_quantize::{ConvertOptions, convert};
use serde_json::{Value, json};

fn has(error: &str, parts: &[&str]) {
    assert!(error.chars().count() < 800, "{} bytes", error.len());
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

/// Writes a safetensors file of this header and so many bytes of data, which are a hole.
fn write_header(checkpoint: &Checkpoint, header: &str, data: u64) {
    let mut file = File::create(checkpoint.path("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + data).unwrap();
}

fn with_header(header: &str, data: u64) -> String {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    write_header(&checkpoint, header, data);
    checkpoint.error_as_written()
}

/// A tokenizer.json that is right, changed.
fn with_tokenizer(change: impl FnOnce(&mut Value)) -> String {
    with_tokenizer_text(|tokenizer| {
        change(tokenizer);
        tokenizer.to_string()
    })
}

fn with_tokenizer_text(text: impl FnOnce(&mut Value) -> String) -> String {
    let mut checkpoint = Checkpoint::new();
    checkpoint.config["vocab_size"] = json!(300);
    let numbers = checkpoint::numbers(1, 300 * checkpoint::D);
    *checkpoint.tensor("wte.weight") =
        checkpoint::Tensor::f32("transformer.wte.weight", &[300, checkpoint::D], &numbers);
    checkpoint.write();
    let mut tokenizer = write_tokenizer(checkpoint.folder.path(), 300);
    let convert = || {
        let options = ConvertOptions::default();
        convert(checkpoint.folder.path(), &checkpoint.output(), &options, &mut ())
    };
    convert().unwrap();
    fs::remove_file(checkpoint.output()).unwrap();
    fs::write(checkpoint.path("tokenizer.json"), text(&mut tokenizer)).unwrap();
    let error = convert().unwrap_err().to_string();
    assert!(!checkpoint.output().exists());
    has(&error, &["tokenizer.json"]);
    error
}

#[test]
fn rejects_header_bombs() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    // As long as the header says, nothing of it on the disk.
    let path = checkpoint.path("model.safetensors");
    for len in [8 * 1024 * 1024 + 1, 100 << 30] {
        let mut file = File::create(&path).unwrap();
        file.write_all(&u64::to_le_bytes(len)).unwrap();
        file.set_len(8 + len).unwrap();
        has(&checkpoint.error_as_written(), &["its header has", "at most 8388608 are read"]);
    }
}

#[test]
fn rejects_overlapping_and_far_tensors() {
    let tensor = |start: u64, end: u64| {
        let shape = end.wrapping_sub(start) / 4;
        format!(r#"{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
    };
    let pair = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let invalid = ["model.safetensors", "not a valid safetensors file"];
    has(&with_header(&pair(tensor(0, 8), tensor(4, 12)), 12), &invalid);
    has(&with_header(&pair(tensor(0, 8), tensor(0, 8)), 8), &invalid);
    has(&with_header(&pair(tensor(0, 8), tensor(12, 16)), 16), &invalid);
    has(&with_header(&pair(tensor(0, 8), tensor(8, 4)), 8), &invalid);
    has(&with_header(&pair(tensor(0, u64::MAX), tensor(u64::MAX, 8)), 8), &invalid);
    let far = with_header(&format!(r#"{{"a":{}}}"#, tensor(0, 1 << 60)), 8);
    has(&far, &["its header asks for"]);
}

/// Readers take this one or that, and shape and dtype may differ where the bytes are the same.
#[test]
fn rejects_a_tensor_that_is_there_twice() {
    let entry = |shape| format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}"#);
    let header = format!(r#"{{"wte":{},"b":{}}}"#, entry("[2,1]"), entry("[1,2]"));
    has(&with_header(&header, 8), &["not a valid safetensors file"]);
    for name in ["wte", "wt\\u0065"] {
        let header = format!(r#"{{"wte":{},"{name}":{}}}"#, entry("[2,1]"), entry("[1,2]"));
        has(&with_header(&header, 8), &["model.safetensors", "tensor wte is there twice"]);
    }
}

#[test]
fn rejects_too_many_tensors_long_names_and_many_dimensions() {
    let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let many: Vec<_> = (0..20_000).map(|i| format!("\"t{i}\":{empty}")).collect();
    let error = with_header(&format!("{{{}}}", many.join(",")), 0);
    has(&error, &["there are 20000 tensors, at most 16384 are read"]);
    let error = with_header(&format!("{{\"{}\":{empty}}}", "x".repeat(1 << 20)), 0);
    has(&error, &["the tensor name xxx", "too long"]);
    let ones = "1,".repeat(1 << 20);
    let deep = format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}1],"data_offsets":[0,4]}}}}"#);
    has(&with_header(&deep, 4), &["tensor a has 1048577 dimensions"]);
}

#[test]
fn rejects_huge_json() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let config = fs::read(checkpoint.path("config.json")).unwrap();
    for (name, max) in [("config.json", 1 << 20), ("generation_config.json", 1 << 20)] {
        File::create(checkpoint.path(name)).unwrap().set_len(max + 1).unwrap();
        let cause = format!("it has {} bytes, at most {max} are read", max + 1);
        has(&checkpoint.error_as_written(), &[name, &cause]);
        fs::remove_file(checkpoint.path(name)).unwrap();
        fs::write(checkpoint.path("config.json"), &config).unwrap();
    }
    fs::remove_file(checkpoint.path("model.safetensors")).unwrap();
    let index = checkpoint.path("model.safetensors.index.json");
    File::create(index).unwrap().set_len((8 << 20) + 1).unwrap();
    has(&checkpoint.error_as_written(), &["index.json", "at most 8388608 are read"]);
    let error = with_tokenizer_text(|tokenizer| {
        tokenizer["model"]["unk_token"] = json!(null);
        tokenizer.to_string() + &" ".repeat(256 << 20)
    });
    has(&error, &["at most 268435456 are read"]);
}

#[test]
fn rejects_deep_json() {
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let config = checkpoint.config.to_string();
    let text = format!("{}, \"x\": {deep}}}", config.strip_suffix('}').unwrap());
    fs::write(checkpoint.path("config.json"), text).unwrap();
    has(&checkpoint.error_as_written(), &["config.json", "recursion limit"]);
    has(&with_header(&format!("{{\"a\":{deep}}}"), 0), &["not a valid safetensors file"]);
    let error = with_tokenizer_text(|tokenizer| {
        let text = tokenizer.to_string();
        let at = text.find("\"normalizer\":null").unwrap() + "\"normalizer\":".len();
        format!("{}{deep}{}", &text[..at], &text[at + "null".len()..])
    });
    has(&error, &["recursion limit"]);
}

#[test]
fn rejects_more_shards_than_can_be() {
    let checkpoint = Checkpoint::new();
    fs::write(checkpoint.path("config.json"), checkpoint.config.to_string()).unwrap();
    let map: serde_json::Map<_, Value> =
        (0..2000).map(|i| (format!("t{i}"), format!("s{i}.safetensors").into())).collect();
    let index = json!({ "weight_map": map });
    fs::write(checkpoint.path("model.safetensors.index.json"), index.to_string()).unwrap();
    has(&checkpoint.error_as_written(), &["it names 2000 shards, at most 1024 are read"]);
}

#[test]
fn names_of_an_index_are_not_repeated_at_length() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let weights = checkpoint.path("model.safetensors");
    fs::rename(weights, checkpoint.path("s.safetensors")).unwrap();
    let error = |tensor: &str, shard: &str| {
        let index = json!({ "weight_map": { tensor: shard } });
        fs::write(checkpoint.path("model.safetensors.index.json"), index.to_string()).unwrap();
        checkpoint.error_as_written()
    };
    let long = "x".repeat(1 << 20);
    has(&error("wte.weight", &long), &["shard name \"xxx", "is not a plain file name"]);
    has(&error(&long, "s.safetensors"), &["it has no tensor xxx", "(1048576 bytes)"]);
}

/// Hugging Face's own cache is made of links, so they are followed: to files, and nothing else.
#[cfg(unix)]
#[test]
fn links_lead_to_files_only() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let elsewhere = tempfile::tempdir().unwrap();
    let weights = checkpoint.path("model.safetensors");
    let link_to = |target: &std::path::Path| {
        let _ = fs::remove_file(&weights);
        std::os::unix::fs::symlink(target, &weights).unwrap();
    };
    let blob = elsewhere.path().join("blob");
    write_safetensors(&blob, &checkpoint.tensors);
    link_to(&blob);
    checkpoint.convert(pocketgpt_quantize::Encoding::Q8).unwrap();
    fs::remove_file(checkpoint.output()).unwrap();

    let fifo = elsewhere.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for place in [fifo.as_path(), "/dev/zero".as_ref(), elsewhere.path()] {
        link_to(place);
        has(&checkpoint.error_as_written(), &["model.safetensors", "not a regular file"]);
    }
    link_to(&elsewhere.path().join("nothing"));
    has(&checkpoint.error_as_written(), &["neither model.safetensors nor"]);
}

#[test]
fn rejects_sizes_that_overflow() {
    let with = |field: &str, value: Value| {
        let mut checkpoint = Checkpoint::new();
        checkpoint.config[field] = value;
        checkpoint.error()
    };
    has(&with("vocab_size", json!(1 << 21)), &["vocab_size is 2097152"]);
    has(&with("vocab_size", json!(u64::MAX)), &["vocab_size is 18446744073709551615"]);
    has(&with("n_positions", json!(1e300)), &["n_positions is 1e+300"]);
    has(&with("n_embd", json!(1 << 30)), &["n_embd is 1073741824"]);
    has(&with("n_embd", json!(u32::MAX)), &["n_embd is 4294967295"]);
    has(&with("n_inner", json!(1 << 17)), &["n_inner is 131072"]);
    has(&with("n_layer", json!(513)), &["n_layer is 513"]);
    has(&with("layer_norm_epsilon", json!(1e300)), &["layer_norm_epsilon"]);
    has(
        &with("eos_token_id", json!(vec![7_u64 << 40; 4000])),
        &["eos_token_id is [7696", "bytes)"],
    );
    has(&with("activation_function", json!("x".repeat(1 << 19))), &["activation_function xxx"]);
    has(&with("model_type", json!("y".repeat(1 << 19))), &["model_type is yyy"]);
}

#[test]
fn rejects_hostile_tokenizers() {
    let merge =
        |merge: Value| with_tokenizer(|t| t["model"]["merges"].as_array_mut().unwrap().push(merge));
    has(&merge(json!(["qqq", "b"])), &["\"qqq\"", "not in the vocabulary"]);
    has(&merge(json!(["a", "z".repeat(1 << 20)])), &["zzz", "not in the vocabulary"]);
    has(&merge(json!("x".repeat(1 << 20))), &["merge \"xxx", "is not two tokens"]);
    has(&merge(json!(["a", "b", "c"])), &["model: "]);
    let token = |token: &str, id: Value| with_tokenizer(|t| t["model"]["vocab"][token] = id);
    has(&token("far", json!(1 << 21)), &["token id 2097152 is not below 2097152"]);
    has(&token("far", json!(u64::MAX)), &["model: "]);
    has(&token("far", json!(-1)), &["model: "]);
    has(&token("many", json!(2_000_000)), &["2000001 entries", "vocab_size is only 300"]);
    has(&token("twice", json!(7)), &["id 7 is given to two tokens"]);
    has(&token(&"日".repeat(1 << 20), json!(299)), &["which is not in the byte-level alphabet"]);
    let long = with_tokenizer(|t| {
        let token = json!({ "id": 299, "content": "x".repeat(5000), "special": true });
        t["added_tokens"].as_array_mut().unwrap().push(token);
    });
    has(&long, &["added token \"xxx"]);
    let many = with_tokenizer_text(|t| {
        let text = t.to_string();
        assert!(text.contains("\"merges\":["));
        text.replacen("\"merges\":[", &format!("\"merges\":[{}", "\"a b\",".repeat(1 << 21)), 1)
    });
    has(&many, &["a list of more than 2097152"]);
    // Sixteen times as much once it is in memory, so it must not get there.
    let part = with_tokenizer(|t| t["post_processor"] = json!(vec![0; 1 << 21]));
    has(&part, &["a part has 4194305 bytes, at most 1048576 are read"]);
    has(&with_tokenizer(|t| t["model"]["type"] = json!("w".repeat(1 << 18))), &["model type www"]);
}
