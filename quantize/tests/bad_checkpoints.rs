//! What cannot be converted is refused by name, in one line, and leaves nothing behind.

mod checkpoint;

use checkpoint::{Checkpoint, D, Tensor, VOCAB, names, write_safetensors};
use pocketgpt_quantize::{ConvertError, ConvertOptions, Encoding, TokenizerChoice, convert};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

fn has(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
}

fn with_config(field: &str, value: Value) -> String {
    let mut checkpoint = Checkpoint::new();
    checkpoint.config[field] = value;
    checkpoint.error()
}

#[test]
fn the_checkpoint_of_these_tests_is_right() {
    Checkpoint::new().write().convert(Encoding::Q8).unwrap();
}

#[test]
fn rejects_config() {
    has(&with_config("model_type", json!("llama")), &["config.json", "model_type is llama"]);
    has(&with_config("model_type", Value::Null), &["model_type is missing"]);
    has(&with_config("add_cross_attention", json!(true)), &["cross-attention"]);
    has(&with_config("n_ctx", json!(16)), &["n_ctx 16 other than n_positions 8"]);
    has(&with_config("activation_function", json!("tanh")), &["activation_function tanh"]);
    has(&with_config("activation_function", json!(7)), &["activation_function is 7"]);
    has(&with_config("quantization_config", json!({"quant_method": "gptq"})), &["gptq"]);
    has(&with_config("pruned_heads", json!({"0": [1]})), &["pruned_heads"]);
    has(&with_config("n_layer", json!(0)), &["n_layer is 0"]);
    has(&with_config("n_layer", json!(-1)), &["n_layer is -1"]);
    has(&with_config("n_layer", json!(1000)), &["n_layer is 1000"]);
    has(&with_config("n_layer", json!(5_000_000_000_u64)), &["n_layer is 5000000000"]);
    has(&with_config("n_head", json!(3)), &["n_head 3 does not divide n_embd 32"]);
    has(&with_config("n_head", json!(2)), &["head size 16"]);
    has(&with_config("n_embd", json!("32")), &["n_embd is \"32\""]);
    has(&with_config("layer_norm_epsilon", json!(0)), &["layer_norm_epsilon"]);
    has(&with_config("eos_token_id", json!(VOCAB)), &["eos_token_id is 33"]);
    has(&with_config("eos_token_id", json!([40, 1])), &["eos_token_id is 40"]);
    has(&with_config("bos_token_id", json!(-1)), &["bos_token_id is -1"]);
    has(&with_config("tie_word_embeddings", json!("yes")), &["tie_word_embeddings is \"yes\""]);
}

#[test]
fn rejects_missing_or_broken_config_file() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    std::fs::write(checkpoint.path("config.json"), "{\"model_type\": \"gpt2\",\n}").unwrap();
    has(&checkpoint.error_as_written(), &["config.json", "line 2"]);
    std::fs::write(checkpoint.path("config.json"), [0xff, 0xfe]).unwrap();
    has(&checkpoint.error_as_written(), &["config.json", "UTF-8"]);
    std::fs::remove_file(checkpoint.path("config.json")).unwrap();
    has(&checkpoint.error_as_written(), &["no config.json"]);
    std::fs::create_dir(checkpoint.path("config.json")).unwrap();
    has(&checkpoint.error_as_written(), &["config.json", "regular file"]);
}

#[test]
fn rejects_missing_source_and_weights() {
    let checkpoint = Checkpoint::new();
    let nowhere = checkpoint.path("nowhere");
    let error = convert(&nowhere, &checkpoint.output(), &ConvertOptions::default(), &mut ());
    assert!(matches!(error, Err(ConvertError::NotFound { .. })));
    checkpoint.write();
    std::fs::remove_file(checkpoint.path("model.safetensors")).unwrap();
    has(&checkpoint.error_as_written(), &["neither model.safetensors nor"]);
    std::fs::write(checkpoint.path("pytorch_model.bin"), "pickle").unwrap();
    has(&checkpoint.error_as_written(), &["pytorch_model.bin", "pickled", "save_pretrained"]);
    let pickled = checkpoint.path("pytorch_model.bin");
    let error = convert(&pickled, &checkpoint.output(), &ConvertOptions::default(), &mut ());
    assert!(matches!(error, Err(ConvertError::Pickled { .. })));
}

#[test]
fn rejects_tensors() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.tensors.retain(|t| !t.name.ends_with("attn.c_attn.bias"));
    has(&checkpoint.error(), &["tensor transformer.h.0.attn.c_attn.bias is missing"]);

    let mut checkpoint = Checkpoint::new();
    checkpoint.config["tie_word_embeddings"] = json!(false);
    has(&checkpoint.error(), &["tensor lm_head.weight is missing"]);

    let mut checkpoint = Checkpoint::new();
    let tensor = checkpoint.tensor("c_attn.weight");
    tensor.shape.reverse();
    has(&checkpoint.error(), &["c_attn.weight", "[96, 32]", "[32, 96]"]);

    let mut checkpoint = Checkpoint::new();
    checkpoint.config["vocab_size"] = json!(40);
    has(&checkpoint.error(), &["wte.weight", "[33, 32]", "[40, 32]"]);

    let mut checkpoint = Checkpoint::new();
    for i in 0..7 {
        let name = format!("transformer.h.0.crossattention.{i}");
        checkpoint.tensors.push(Tensor::f32(&name, &[1], &[0.0]));
    }
    has(&checkpoint.error(), &["unexpected tensors", "crossattention.0", "and 2 more"]);

    let mut checkpoint = Checkpoint::new();
    checkpoint.tensors.push(Tensor::f32("transformer.h.1.ln_1.bias", &[D], &[0.0; D]));
    has(&checkpoint.error(), &["unexpected tensors", "h.1.ln_1.bias"]);

    let mut checkpoint = Checkpoint::new();
    checkpoint.tensors.push(Tensor::f32("ln_f.bias", &[D], &[0.0; D]));
    has(&checkpoint.error(), &["ln_f.bias", "twice"]);

    let mut checkpoint = Checkpoint::new();
    let tensor = checkpoint.tensor("ln_f.bias");
    (tensor.dtype, tensor.bytes) = (Dtype::F64, vec![0; 8 * D]);
    has(&checkpoint.error(), &["ln_f.bias", "F64", "BF16"]);
    let tensor = checkpoint.tensor("ln_f.bias");
    (tensor.dtype, tensor.bytes) = (Dtype::I8, vec![0; D]);
    has(&checkpoint.error(), &["ln_f.bias", "I8"]);
}

#[test]
fn rejects_numbers_that_are_not_finite() {
    let bytes = |x: f32| x.to_le_bytes();
    for name in ["wte.weight", "mlp.c_proj.weight", "wpe.weight", "ln_f.bias"] {
        let mut checkpoint = Checkpoint::new();
        let numbers = checkpoint.tensor(name).bytes.as_chunks_mut::<4>().0;
        numbers[3] = bytes(f32::NAN);
        numbers[7] = bytes(f32::NEG_INFINITY);
        has(&checkpoint.error(), &[name, "2 numbers"]);
    }
    for (dtype, infinity) in [(Dtype::F16, [0, 0x7c]), (Dtype::BF16, [0x80, 0x7f])] {
        let mut checkpoint = Checkpoint::new();
        let tensor = checkpoint.tensor("c_fc.bias");
        (tensor.dtype, tensor.bytes) = (dtype, vec![0; 8 * D]);
        tensor.bytes[10..12].copy_from_slice(&infinity);
        has(&checkpoint.error(), &["c_fc.bias", "1 numbers"]);
    }
}

#[test]
fn rejects_f16_overflow_by_name() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.tensor("c_fc.weight").bytes[..4].copy_from_slice(&65520f32.to_le_bytes());
    checkpoint.write();
    let error = checkpoint.convert(Encoding::F16).unwrap_err().to_string();
    has(&error, &["c_fc.weight", "1 numbers", "--to f32"]);
    checkpoint.convert(Encoding::F32).unwrap();
    checkpoint.convert(Encoding::Q8).unwrap();
}

#[test]
fn rejects_broken_safetensors() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let path = checkpoint.path("model.safetensors");
    let good = std::fs::read(&path).unwrap();
    let error_of = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        checkpoint.error_as_written()
    };
    has(&error_of(&good[..good.len() - 1]), &["model.safetensors", "download it again"]);
    has(&error_of(&[&good[..], &[0]].concat()), &["model.safetensors", "bytes"]);
    has(&error_of(&good[..100]), &["its header asks for"]);
    has(&error_of(&good[..5]), &["only 5 bytes"]);
    has(&error_of(&[]), &["only 0 bytes"]);
    let huge = [&u64::MAX.to_le_bytes()[..], &good[8..]].concat();
    has(&error_of(&huge), &["its header has 18446744073709551615 bytes"]);
    let beyond = [&7_999_999u64.to_le_bytes()[..], &good[8..]].concat();
    has(&error_of(&beyond), &["its header asks for"]);
    let mut noise = good.clone();
    noise[20] = b'\0';
    has(&error_of(&noise), &["not a valid safetensors file"]);
    let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let gap = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 12]].concat();
    has(&error_of(&gap), &["not a valid safetensors file"]);
    let header = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    let overflow = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    has(&error_of(&overflow), &["not a valid safetensors file"]);
}

#[test]
fn rejects_shards() {
    let checkpoint = Checkpoint::new();
    std::fs::write(checkpoint.path("config.json"), checkpoint.config.to_string()).unwrap();
    write_safetensors(&checkpoint.path("a.safetensors"), &checkpoint.tensors[..4]);
    write_safetensors(&checkpoint.path("b.safetensors"), &checkpoint.tensors[4..]);
    let shard = |i: usize| if i < 4 { "a.safetensors" } else { "b.safetensors" };
    let names = checkpoint.tensors.iter().map(|t| t.name.clone()).enumerate();
    let map: serde_json::Map<_, Value> = names.map(|(i, n)| (n, shard(i).into())).collect();
    let write = |map: &serde_json::Map<_, Value>| {
        let index = json!({ "metadata": {}, "weight_map": map });
        let path = checkpoint.path("model.safetensors.index.json");
        std::fs::write(path, index.to_string()).unwrap();
    };
    write(&map);
    checkpoint.convert(Encoding::Q8).unwrap();
    std::fs::remove_file(checkpoint.output()).unwrap();

    let first = "transformer.wte.weight";
    let error_with = |name: &str, shard: Option<&str>| {
        let mut map = map.clone();
        match shard {
            Some(shard) => drop(map.insert(name.into(), shard.into())),
            None => drop(map.remove(name)),
        }
        write(&map);
        checkpoint.error_as_written()
    };
    for evil in ["../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", "", "a\\b"] {
        has(&error_with(first, Some(evil)), &["index.json", "not a plain file name"]);
    }
    has(&error_with(first, Some("c.safetensors")), &["c.safetensors"]);
    has(&error_with(first, Some("b.safetensors")), &["index", first]);
    has(&error_with("made.up", Some("b.safetensors")), &["b.safetensors", "made.up"]);
    has(&error_with(first, None), &["a.safetensors", first, "not listed"]);
}

#[test]
fn rejects_output() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let options = ConvertOptions { tokenizer: TokenizerChoice::Skip, ..ConvertOptions::default() };
    let error = |output: &str| {
        let output = checkpoint.path(output);
        let before = names(checkpoint.folder.path());
        let error = convert(checkpoint.folder.path(), &output, &options, &mut ()).unwrap_err();
        assert_eq!(names(checkpoint.folder.path()), before);
        error
    };
    assert!(matches!(error("nowhere/out.pgpt"), ConvertError::Output { .. }));
    assert!(matches!(error("config.json/out.pgpt"), ConvertError::Io { action: "create", .. }));
    assert!(matches!(error("."), ConvertError::Output { .. }));
    assert!(matches!(error("model.safetensors"), ConvertError::OutputIsSource { .. }));
    assert!(matches!(error("config.json"), ConvertError::OutputIsSource { .. }));
}

#[test]
fn a_failure_keeps_the_file_that_was_there() {
    let mut checkpoint = Checkpoint::new();
    std::fs::write(checkpoint.output(), "old").unwrap();
    checkpoint.tensor("ln_f.bias").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    has(&checkpoint.error(), &["ln_f.bias"]);
    assert_eq!(std::fs::read(checkpoint.output()).unwrap(), b"old");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    struct Cancel(u32);
    impl pocketgpt_quantize::Progress for Cancel {
        fn advance(&mut self, _: u64) {
            self.0 = self.0.saturating_sub(1);
        }
        fn is_cancelled(&self) -> bool {
            self.0 == 0
        }
    }
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let before = names(checkpoint.folder.path());
    let options = ConvertOptions { tokenizer: TokenizerChoice::Skip, ..ConvertOptions::default() };
    for steps in [1, 5, 16] {
        let folder = checkpoint.folder.path();
        let error = convert(folder, &checkpoint.output(), &options, &mut Cancel(steps));
        assert!(matches!(error, Err(ConvertError::Cancelled)), "{steps}");
        assert_eq!(names(folder), before);
    }
}
