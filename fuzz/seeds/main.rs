//! Writes the seeds of all targets: `seeds DIR`.
//!
//! Small inputs that are right, so that mutations begin deep inside, and inputs with the shapes
//! that broke other readers of models: see `docs/security.md`.

use std::path::Path;
use std::{env, fs};

use pocketgpt_fuzz::checkpoint;
use pocketgpt_fuzz::file::{Fill, random_file, random_tokenizer, seal};
use pocketgpt_fuzz::numbers::Numbers;
use pocketgpt_fuzz::{saved, tokenizer};
use pocketgpt_quantize::source::SourceDtype;
use pocketgpt_runtime::{KvType, Overflow};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

fn main() {
    let Some(folder) = env::args_os().nth(1) else {
        eprintln!("usage: seeds DIR");
        std::process::exit(2);
    };
    let folder = Path::new(&folder);
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join(name), bytes))
            .unwrap_or_else(|error| {
                eprintln!("error: {}: {error}", folder.display());
                std::process::exit(1);
            });
    };
    files(&|name, bytes| write("open_and_run", name, bytes));
    checkpoints(&|name, bytes| write("checkpoint", name, bytes));
    tokenizers(&|name, bytes| write("tokenizer", name, bytes));
    options(&|name, bytes| write("sampling", name, bytes));
    sessions(&|name, bytes| write("saved_session", name, bytes));
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

type Write<'a> = &'a dyn Fn(&str, &[u8]);

fn files(write: Write<'_>) {
    let fills = [Fill::Sound, Fill::Any, Fill::Byte(0x80), Fill::Byte(0xff)];
    let mut seed = 0;
    let mut next = |limit: usize| loop {
        seed += 1;
        let file = random_file(&mut Numbers::new(seed), fills[seed as usize % 4]);
        if file.len() <= limit {
            return file;
        }
    };
    for i in 0..24 {
        write(&format!("whole-{i:02}"), &next(40_000));
    }
    // Counts, lengths and offsets that wrap or overlap (the shapes of CVE-2024-23605,
    // CVE-2025-53630 and CVE-2026-27940), with checksums that fit.
    let whole = next(30_000);
    let len = whole.len() as u64;
    for (i, (at, value)) in [
        (8, u64::MAX),
        (24, u64::MAX - 64),
        (40, 1 << 62),
        (48, len),
        (56, u64::MAX - 1216),
        (64, 0),
        (72, u64::MAX),
        (80, u64::MAX & !4095),
        (88, u64::MAX - 8191),
        (112, u32::MAX.into()),
        (128, u64::MAX),
        (136, 1 << 46 | 1 << 14),
        (144, 1 << 41 | 1),
        (200, u64::from(u32::MAX) << 32 | 1 << 31),
        (208, u64::MAX - 63),
        (216, u64::MAX),
        (208, 8192 + 32),
        (280, 1 << 63),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bytes = whole.clone();
        put(&mut bytes, at, value);
        seal(&mut bytes);
        write(&format!("wraps-{i:02}"), &bytes);
    }
}

fn tokenizers(write: Write<'_>) {
    let texts =
        ["Once upon a time", "it's <|endoftext|> 1\u{a0}234 ß日本\n\n  x", "", "\u{301}👍🏽 '"];
    for (i, text) in texts.iter().cycle().take(12).enumerate() {
        let section = random_tokenizer(&mut Numbers::new(i as u64));
        write(&format!("whole-{i:02}"), &tokenizer::input(text, &section));
        // Tables that point behind their ends (the shape of CVE-2025-49847: a length that changes
        // its sign) and merges of everything.
        let mut wild = section.clone();
        let at = 64 + 1024 + 4 * i;
        wild[at..at + 4].copy_from_slice(&(u32::MAX - i as u32).to_le_bytes());
        write(&format!("offsets-{i:02}"), &tokenizer::input(text, &wild));
        let tables = 64
            + 1024
            + 8 * (u32::from_le_bytes(section[8..12].try_into().expect("four")) as usize + 1);
        let mut wild = section;
        wild[tables..].fill(0);
        write(&format!("zero-merges-{i:02}"), &tokenizer::input(text, &wild));
    }
}

/// Inputs are read by `arbitrary`, so any bytes are options: these are only of different lengths.
fn options(write: Write<'_>) {
    for seed in 0..64 {
        let mut random = Numbers::new(seed);
        let len = 40 + random.below(600);
        let few = random.below(2) == 0;
        let bytes: Vec<u8> = (0..len)
            .map(|_| if few { (random.next() % 4) as u8 } else { random.next() as u8 })
            .collect();
        write(&format!("any-{seed:02}"), &bytes);
    }
}

/// Sessions at every kind of position, and headers that claim what is not there (the shape of
/// CVE-2026-43629).
fn sessions(write: Write<'_>) {
    let mut whole = Vec::new();
    for kv in [KvType::F32, KvType::F16, KvType::Q8] {
        for overflow in Overflow::ALL {
            for (window, count) in [(8, 0), (8, 3), (8, 8), (5, 7), (8, 11), (5, 40)] {
                if overflow == Overflow::Stop && count > 8 {
                    continue;
                }
                whole = saved::saved(kv, overflow, window, count);
                write(&format!("{kv}-{overflow}-{window}-{count}"), &whole);
            }
        }
    }
    for (at, value) in [
        (36, 1 << 31),
        (48, u64::from(u32::MAX)),
        (52, 1 << 20),
        (56, 1 << 63),
        (64, 1 << 62),
        (72, 41),
    ] {
        let mut bytes = whole.clone();
        put(&mut bytes, at, value);
        saved::seal(&mut bytes);
        write(&format!("claims-{at}"), &bytes);
    }
}

const VOCAB: usize = 260;
const D: usize = 32;

fn config() -> Value {
    json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_positions": 4, "n_embd": D, "n_layer": 1,
        "n_head": 1, "n_inner": 16, "activation_function": "gelu_new", "eos_token_id": 259,
        "layer_norm_epsilon": 1e-5, "scale_attn_weights": true, "tie_word_embeddings": true,
    })
}

/// A tokenizer as `tokenizers` writes it.
fn tokenizer_json(pairs: bool) -> Value {
    let letter = |byte| pocketgpt_runtime::tokenizer::alphabet::byte_to_char(byte).to_string();
    let mut vocab: serde_json::Map<String, Value> =
        (0..=255).map(|byte| (letter(byte), json!(byte))).collect();
    let merges = [("h", "e"), ("l", "l"), ("he", "ll")];
    for (id, (left, right)) in (256..).zip(merges) {
        vocab.insert([left, right].concat(), json!(id));
    }
    let merges: Vec<Value> = merges
        .iter()
        .map(|(l, r)| if pairs { json!([l, r]) } else { json!(format!("{l} {r}")) })
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": [{"id": 259, "content": "<|endoftext|>", "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocab, "merges": merges},
    })
}

fn weights(dtype: SourceDtype) -> Vec<u8> {
    let h = "h.0.";
    let shapes: [(String, Vec<usize>); 16] = [
        ("wte.weight".into(), vec![VOCAB, D]),
        ("wpe.weight".into(), vec![4, D]),
        (format!("{h}ln_1.weight"), vec![D]),
        (format!("{h}ln_1.bias"), vec![D]),
        (format!("{h}attn.c_attn.weight"), vec![D, 3 * D]),
        (format!("{h}attn.c_attn.bias"), vec![3 * D]),
        (format!("{h}attn.c_proj.weight"), vec![D, D]),
        (format!("{h}attn.c_proj.bias"), vec![D]),
        (format!("{h}ln_2.weight"), vec![D]),
        (format!("{h}ln_2.bias"), vec![D]),
        (format!("{h}mlp.c_fc.weight"), vec![D, 16]),
        (format!("{h}mlp.c_fc.bias"), vec![16]),
        (format!("{h}mlp.c_proj.weight"), vec![16, D]),
        (format!("{h}mlp.c_proj.bias"), vec![D]),
        ("ln_f.weight".into(), vec![D]),
        ("ln_f.bias".into(), vec![D]),
    ];
    let mut random = Numbers::new(3);
    let mut tensors = Vec::new();
    for (name, shape) in shapes {
        let bytes: Vec<u8> = (0..shape.iter().product::<usize>())
            .flat_map(|_| {
                let number = random.below(2001) as f32 / 1e4 - 0.1;
                match dtype {
                    SourceDtype::F32 => number.to_le_bytes().to_vec(),
                    // bf16, and bytes that are f16 numbers as well.
                    _ => number.to_le_bytes()[2..].to_vec(),
                }
            })
            .collect();
        tensors.push((name, shape, bytes));
    }
    let dtype = match dtype {
        SourceDtype::F32 => Dtype::F32,
        SourceDtype::F16 => Dtype::F16,
        SourceDtype::Bf16 => Dtype::BF16,
    };
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, TensorView::new(dtype, shape.clone(), bytes).expect("bytes for the shape"))
    });
    serialize(views, None).expect("names and shapes that fit")
}

fn checkpoints(write: Write<'_>) {
    let (config, tokenizer) = (config().to_string(), tokenizer_json(true).to_string());
    let join = |config: &str, tokenizer: &str, weights: &[u8]| {
        checkpoint::join([config.as_bytes(), tokenizer.as_bytes(), weights])
    };
    let half = weights(SourceDtype::F16);
    for (name, dtype) in
        [("f32", SourceDtype::F32), ("f16", SourceDtype::F16), ("bf16", SourceDtype::Bf16)]
    {
        write(&format!("whole-{name}"), &join(&config, &tokenizer, &weights(dtype)));
    }
    write("joined-merges", &join(&config, &tokenizer_json(false).to_string(), &half));
    // A header of 2^63 bytes, one of a gigabyte of nothing, and none.
    for (name, len) in [("sign", 1u64 << 63), ("bomb", 1 << 30), ("most", u64::MAX), ("none", 0)] {
        let mut bytes = half.clone();
        put(&mut bytes, 0, len);
        write(&format!("header-{name}"), &join(&config, &tokenizer, &bytes));
    }
    // Offsets that overlap, are backwards, or wrap; shapes whose product wraps.
    for (name, tensor) in [
        (
            "overlap",
            r#"{"dtype":"F16","shape":[4],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[4],"data_offsets":[4,12]}"#,
        ),
        ("backwards", r#"{"dtype":"F16","shape":[4],"data_offsets":[8,0]}"#),
        ("wraps", r#"{"dtype":"F16","shape":[9223372036854775808,2],"data_offsets":[0,0]}"#),
        (
            "far",
            r#"{"dtype":"F16","shape":[4],"data_offsets":[18446744073709551607,18446744073709551615]}"#,
        ),
        ("deep", &format!("{}{}", "[".repeat(4000), "]".repeat(4000))),
    ] {
        let header = format!(r#"{{"wte.weight":{tensor}}}"#);
        let bytes =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 16]].concat();
        write(&format!("offsets-{name}"), &join(&config, &tokenizer, &bytes));
    }
    // Merges of tokens that there are not, an id that is far away, nesting.
    for (name, from, to) in [
        ("merge-unknown", r#"["h","e"]"#, r#"["zz","e"]"#),
        ("merge-empty", r#"["h","e"]"#, r#"["",""]"#),
        ("id-far", r#""he":256"#, r#""he":2097151"#),
        ("id-out", r#""he":256"#, r#""he":4294967295"#),
        (
            "deep",
            r#""unk_token":null"#,
            &format!(r#""unk_token":{}{}"#, "[".repeat(400), "]".repeat(400)),
        ),
    ] {
        assert!(tokenizer.contains(from), "{from}");
        write(&format!("tokenizer-{name}"), &join(&config, &tokenizer.replace(from, to), &half));
    }
}
