//! Every form a GPT-2 checkpoint may have.

mod checkpoint;

use checkpoint::{Checkpoint, D, Tensor, VOCAB, names, numbers, tiny};
use half::{bf16, f16};
use pocketgpt_quantize::{ConvertOptions, Encoding, Inspection, TokenizerChoice, convert, inspect};
use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::format::{MappedFile, Role, WeightFile};
use safetensors::tensor::Dtype;
use serde_json::{Value, json};

/// Converts to f32 and hands over the file, which is proven first.
fn with_file<R>(checkpoint: &Checkpoint, check: impl FnOnce(&WeightFile<'_>) -> R) -> R {
    checkpoint.write().convert(Encoding::F32).unwrap();
    let map = MappedFile::open(&checkpoint.output()).unwrap();
    let file = WeightFile::new(map.bytes()).unwrap();
    file.verify().unwrap();
    check(&file)
}

fn config_with(field: &str, value: Value) -> Gpt2Config {
    let mut checkpoint = Checkpoint::new();
    checkpoint.config[field] = value;
    with_file(&checkpoint, |file| *file.config())
}

/// Weight (row, col) of an f32 matrix.
fn weight(file: &WeightFile<'_>, role: Role, row: usize, col: usize) -> f32 {
    let tensor = file.tensor(role, 0);
    let at = 4 * (row / 16 * 16 * tensor.entry.cols as usize + col * 16 + row % 16);
    f32::from_le_bytes(tensor.bytes[at..at + 4].try_into().unwrap())
}

#[test]
fn conv1d_is_transposed_and_embeddings_are_not() {
    with_file(&Checkpoint::new(), |file| {
        let (c_fc, wte) = (numbers(10, D * 4 * D), numbers(0, VOCAB * D));
        for (row, col) in [(0, 0), (1, 0), (0, 1), (17, 5), (127, 31)] {
            assert_eq!(weight(file, Role::CFcWeight, row, col), c_fc[col * 4 * D + row]);
        }
        for (row, col) in [(0, 0), (1, 0), (0, 1), (17, 5), (32, 31)] {
            assert_eq!(weight(file, Role::Wte, row, col), wte[row * D + col]);
        }
        let bias = file.tensor(Role::CAttnBias, 0);
        assert_eq!(bias.f32s(), numbers(5, 3 * D));
    });
}

#[test]
fn options_of_the_config() {
    let plain = config_with("n_inner", Value::Null);
    assert_eq!((plain.n_inner, plain.n_ctx, plain.tied_head), (128, 8, true));
    assert_eq!(plain.activation, Activation::GeluNew);
    assert!(plain.scale_attn_weights && !plain.scale_attn_by_inverse_layer_idx);
    assert_eq!((plain.bos_token_id, plain.eos_token_id), (None, None));
    assert_eq!(plain.layer_norm_epsilon, 1e-5);
    for (name, activation) in [
        ("gelu_new", Activation::GeluNew),
        ("gelu_pytorch_tanh", Activation::GeluNew),
        ("gelu", Activation::Gelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
    ] {
        assert_eq!(config_with("activation_function", json!(name)).activation, activation);
    }
    assert_eq!(config_with("n_ctx", json!(8)), plain);
    assert_eq!(config_with("reorder_and_upcast_attn", json!(true)), plain);
    assert_eq!(config_with("layer_norm_epsilon", json!(1e-3)).layer_norm_epsilon, 1e-3);
    assert!(!config_with("scale_attn_weights", json!(false)).scale_attn_weights);
    let inverse = config_with("scale_attn_by_inverse_layer_idx", json!(true));
    assert!(inverse.scale_attn_by_inverse_layer_idx);
    assert_eq!(config_with("eos_token_id", json!(32)).eos_token_id, Some(32));
    assert_eq!(config_with("eos_token_id", json!([7, 40])).eos_token_id, Some(7));
}

#[test]
fn n_inner_of_any_size() {
    for n_inner in [1, 100, 160] {
        let mut checkpoint = Checkpoint::new();
        checkpoint.config["n_inner"] = json!(n_inner);
        for (name, shape) in [
            ("c_fc.weight", vec![D, n_inner]),
            ("c_fc.bias", vec![n_inner]),
            ("mlp.c_proj.weight", vec![n_inner, D]),
        ] {
            let tensor = checkpoint.tensor(name);
            let count = shape.iter().product();
            *tensor = Tensor::f32(&tensor.name.clone(), &shape, &numbers(3, count));
        }
        checkpoint.write();
        for encoding in [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3] {
            checkpoint.convert(encoding).unwrap();
            let map = MappedFile::open(&checkpoint.output()).unwrap();
            WeightFile::new(map.bytes()).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn half_precision_sources_and_mixed_ones() {
    let mut checkpoint = Checkpoint::new();
    let c_fc = numbers(10, D * 4 * D);
    let tensor = checkpoint.tensor("c_fc.weight");
    tensor.dtype = Dtype::BF16;
    tensor.bytes = c_fc.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
    let tensor = checkpoint.tensor("ln_f.bias");
    tensor.dtype = Dtype::F16;
    tensor.bytes = numbers(15, D).iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect();
    with_file(&checkpoint, |file| {
        assert_eq!(
            weight(file, Role::CFcWeight, 5, 3),
            bf16::from_f32(c_fc[3 * 4 * D + 5]).to_f32()
        );
        let expected: Vec<f32> =
            numbers(15, D).iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        assert_eq!(file.tensor(Role::LnFBias, 0).f32s(), expected);
    });
}

#[test]
fn names_without_prefix_and_old_buffers() {
    let bytes = |checkpoint: &Checkpoint| with_file(checkpoint, |file| file.bytes().to_vec());
    let mut checkpoint = Checkpoint::new();
    let data = |file: Vec<u8>| file[4096..].to_vec();
    let expected = data(bytes(&checkpoint));
    for tensor in &mut checkpoint.tensors {
        tensor.name = tensor.name.strip_prefix("transformer.").unwrap().into();
    }
    let mask = |name: &str, dtype, len| Tensor {
        name: name.into(),
        dtype,
        shape: vec![1, 1, len, len],
        bytes: vec![1; len * len],
    };
    checkpoint.tensors.push(mask("h.0.attn.bias", Dtype::BOOL, 8));
    checkpoint.tensors.push(Tensor::f32("h.0.attn.masked_bias", &[], &[-1e4]));
    assert!(data(bytes(&checkpoint)) == expected);
}

#[test]
fn heads_tied_and_untied() {
    let tied = |checkpoint: &Checkpoint| with_file(checkpoint, |file| file.config().tied_head);
    let mut checkpoint = Checkpoint::new();
    let equal = numbers(0, VOCAB * D);
    checkpoint.tensors.push(Tensor::f32("lm_head.weight", &[VOCAB, D], &equal));
    assert!(tied(&checkpoint));
    // What was said about tying does not matter once the numbers are equal.
    checkpoint.config["tie_word_embeddings"] = json!(false);
    assert!(tied(&checkpoint));

    let mut other = equal.clone();
    *other.last_mut().unwrap() += 1.0;
    *checkpoint.tensor("lm_head.weight") = Tensor::f32("lm_head.weight", &[VOCAB, D], &other);
    for said in [json!(false), json!(true), Value::Null] {
        checkpoint.config["tie_word_embeddings"] = said;
        with_file(&checkpoint, |file| {
            assert!(!file.config().tied_head);
            assert_eq!(weight(file, Role::LmHead, VOCAB - 1, D - 1), *other.last().unwrap());
            assert_eq!(weight(file, Role::Wte, VOCAB - 1, D - 1), *equal.last().unwrap());
        });
    }

    // Equal numbers of two dtypes.
    let rounded = |x: &f32| f16::from_f32(*x);
    let mut checkpoint = Checkpoint::new();
    let wide: Vec<f32> = equal.iter().map(|x| rounded(x).to_f32()).collect();
    *checkpoint.tensor("wte.weight") = Tensor::f32("transformer.wte.weight", &[VOCAB, D], &wide);
    let bytes = equal.iter().flat_map(|x| rounded(x).to_le_bytes()).collect();
    let head =
        Tensor { name: "lm_head.weight".into(), dtype: Dtype::F16, shape: vec![VOCAB, D], bytes };
    checkpoint.tensors.push(head);
    assert!(tied(&checkpoint));
}

#[test]
fn a_weight_file_beside_its_config() {
    let checkpoint = Checkpoint::new();
    checkpoint.write();
    let weights = checkpoint.path("finetuned.safetensors");
    std::fs::rename(checkpoint.path("model.safetensors"), &weights).unwrap();
    let options = ConvertOptions { tokenizer: TokenizerChoice::Skip, ..ConvertOptions::default() };
    let report = convert(&weights, &checkpoint.output(), &options, &mut ()).unwrap();
    assert_eq!(report.source.name, "finetuned.safetensors");
}

#[test]
fn generation_defaults_are_kept() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.config["bos_token_id"] = json!(1);
    let generation = json!({
        "do_sample": true, "top_p": 0.9, "eos_token_id": [5, 6], "transformers_version": "5",
        "pad_token_id": null,
    });
    std::fs::write(checkpoint.path("generation_config.json"), generation.to_string()).unwrap();
    with_file(&checkpoint, |file| {
        let metadata: Value = serde_json::from_str(file.metadata().unwrap()).unwrap();
        let expected = json!({ "do_sample": true, "top_p": 0.9, "eos_token_id": [5, 6] });
        assert_eq!(metadata["generation"], expected);
        assert_eq!((file.config().bos_token_id, file.config().eos_token_id), (Some(1), Some(5)));
    });
}

#[test]
fn weights_no_quantizer_can_lose() {
    let mut checkpoint = Checkpoint::new();
    let mut zeros = vec![0.0; D * 4 * D];
    zeros[3] = -0.0;
    *checkpoint.tensor("c_fc.weight") =
        Tensor::f32("transformer.h.0.mlp.c_fc.weight", &[D, 4 * D], &zeros);
    let huge = vec![1e30; D * D];
    *checkpoint.tensor("attn.c_proj.weight") =
        Tensor::f32("transformer.h.0.attn.c_proj.weight", &[D, D], &huge);
    let subnormal = vec![1e-44; D * 3 * D];
    *checkpoint.tensor("c_attn.weight") =
        Tensor::f32("transformer.h.0.attn.c_attn.weight", &[D, 3 * D], &subnormal);
    checkpoint.write();
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        checkpoint.convert(encoding).unwrap();
        let map = MappedFile::open(&checkpoint.output()).unwrap();
        WeightFile::new(map.bytes()).unwrap().verify().unwrap();
    }
}

#[test]
fn wpe_too_large_for_f16_stays_f32() {
    let mut checkpoint = Checkpoint::new();
    checkpoint.tensor("wpe.weight").bytes[..4].copy_from_slice(&1e6f32.to_le_bytes());
    let report = checkpoint.write().convert(Encoding::F16).unwrap();
    assert_eq!(report.tensors[1].encoding, "f32");
    let report = Checkpoint::new().write().convert(Encoding::Q4).unwrap();
    assert_eq!(report.tensors[1].encoding, "f16");
}

#[test]
fn made_up_checkpoints_convert_and_are_the_same_twice() {
    let (first, second) = (tiny(), tiny());
    for name in names(first.path()) {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(&name)).unwrap();
        assert!(read(&first) == read(&second), "{name}");
    }
    let output = first.path().join("tiny.pgpt");
    convert(first.path(), &output, &ConvertOptions::default(), &mut ()).unwrap();
    let map = MappedFile::open(&output).unwrap();
    let file = WeightFile::new(map.bytes()).unwrap();
    file.verify().unwrap();
    assert_eq!(file.tokenizer().unwrap().unwrap().vocab_size(), 512);
    assert_eq!(file.config().n_layer, 2);

    match inspect(&output).unwrap() {
        Inspection::WeightFile(found) => {
            assert_eq!(found.tokenizer_entries, Some(512));
            assert_eq!(found.config["layer_norm_epsilon"], 1e-5);
        }
        Inspection::Checkpoint(_) => panic!("this is a .pgpt file"),
    }
    match inspect(first.path()).unwrap() {
        Inspection::Checkpoint(found) => {
            assert_eq!(found.numbers, file.config().parameter_count());
        }
        Inspection::WeightFile(_) => panic!("this is a checkpoint"),
    }
}

#[test]
fn every_fixture_variant_converts() {
    let variants =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/variants");
    let output = tempfile::tempdir().unwrap();
    for name in names(&variants) {
        let folder = variants.join(&name);
        let has = |file: &str| folder.join(file).exists();
        let tokenizer = if has("tokenizer.json") || has("vocab.json") {
            TokenizerChoice::FromSource
        } else {
            TokenizerChoice::Skip
        };
        for to in [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3] {
            let path = output.path().join("variant.pgpt");
            let options = ConvertOptions { to, tokenizer: tokenizer.clone(), ..Default::default() };
            convert(&folder, &path, &options, &mut ())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let map = MappedFile::open(&path).unwrap();
            WeightFile::new(map.bytes()).unwrap().verify().unwrap();
        }
    }
}
