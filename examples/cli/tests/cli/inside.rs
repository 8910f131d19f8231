//! `embed` and `attention`: the numbers are those of transformers, and they can be looked at.

use std::fs;
use std::path::PathBuf;

use pocketgpt_quantize::{ConvertOptions, Encoding, convert};
use pocketgpt_runtime::format::{MappedFile, WeightFile};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use crate::run::{npy_numbers, repository, run, run_with_stdin};

const TOKENS: usize = 96;
const N_EMBD: usize = 256;
const N_LAYER: usize = 6;
const N_HEAD: usize = 4;

/// The bundled model without loss, the golden text, and room for files.
struct Golden {
    folder: TempDir,
    model: PathBuf,
    text: String,
}

impl Golden {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("f32.pgpt");
        let options = ConvertOptions { to: Encoding::F32, ..ConvertOptions::default() };
        convert(&repository("examples/model"), &model, &options, &mut ()).unwrap();
        let map = MappedFile::open(&model).unwrap();
        let tokenizer = WeightFile::new(map.bytes()).unwrap().tokenizer().unwrap().unwrap();
        let ids = numbers("input_ids", u32::from_le_bytes);
        let text = tokenizer.decode_to_string(&ids);
        assert_eq!(tokenizer.encode_to_vec(&text), ids);
        Self { folder, model, text }
    }

    /// What a command writes with `--npy`.
    fn npy(&self, args: &[&str], shape: &[usize]) -> Vec<f32> {
        let path = self.folder.path().join("x.npy");
        let files = ["-m", self.model.to_str().unwrap(), "--npy", path.to_str().unwrap()];
        run(&[args, &files, &[&self.text]].concat()).ok();
        npy_numbers(&path, shape)
    }
}

/// A tensor of the golden file.
fn numbers<T>(name: &str, number: fn([u8; 4]) -> T) -> Vec<T> {
    let bytes = fs::read(repository("tests/data/golden/forward.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    tensor.data().as_chunks::<4>().0.iter().map(|&x| number(x)).collect()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 3e-5, "{i}: {a} {b}");
    }
}

#[test]
fn hidden_states_are_those_of_transformers() {
    let golden = Golden::new();
    let expected = numbers("hidden_states", f32::from_le_bytes);
    let expected: Vec<&[f32]> = expected.chunks(TOKENS * N_EMBD).collect();
    assert_eq!(expected.len(), N_LAYER + 1);
    for (layer, expected) in expected.iter().enumerate() {
        let layer = layer.to_string();
        let embed = |pool, shape: &[usize]| {
            golden.npy(&["embed", "--layer", &layer, "--pool", pool], shape)
        };
        close(&embed("none", &[TOKENS, N_EMBD]), expected);
        close(&embed("last", &[1, N_EMBD]), &expected[(TOKENS - 1) * N_EMBD..]);
        let mean: Vec<f32> = (0..N_EMBD)
            .map(|i| expected.iter().skip(i).step_by(N_EMBD).sum::<f32>() / TOKENS as f32)
            .collect();
        close(&embed("mean", &[1, N_EMBD]), &mean);
    }
}

#[test]
fn static_embeddings_are_the_rows_of_wte() {
    let golden = Golden::new();
    let bytes = fs::read(repository("examples/model/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let wte = tensors.tensor("transformer.wte.weight").unwrap();
    // f16, by way of the layer of the golden file that has nothing but wte and wpe.
    assert_eq!(wte.shape(), [4096, N_EMBD]);
    let wpe = tensors.tensor("transformer.wpe.weight").unwrap();
    let half = |bytes: &[u8], at: usize| {
        let bits = u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        half_to_f32(bits)
    };
    let ids = numbers("input_ids", u32::from_le_bytes);
    let found = golden.npy(&["embed", "--pool", "none"], &[TOKENS, N_EMBD]);
    let layer_0 = golden.npy(&["embed", "--pool", "none", "--layer", "0"], &[TOKENS, N_EMBD]);
    for (i, &id) in ids.iter().enumerate() {
        for d in 0..N_EMBD {
            let expected = half(wte.data(), id as usize * N_EMBD + d);
            assert_eq!(found[i * N_EMBD + d], expected);
            assert_eq!(layer_0[i * N_EMBD + d], expected + half(wpe.data(), i * N_EMBD + d));
        }
    }
}

/// Exact; neither infinite nor NaN.
fn half_to_f32(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (bits >> 15, bits >> 10 & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => mantissa * 2f32.powi(-24),
        e => (1024.0 + mantissa) * 2f32.powi(i32::from(e) - 25),
    };
    if sign == 1 { -size } else { size }
}

#[test]
fn attentions_are_those_of_transformers() {
    let golden = Golden::new();
    let expected = numbers("attentions", f32::from_le_bytes);
    let shape = [TOKENS, TOKENS];
    for (layer, expected) in expected.chunks(N_HEAD * TOKENS * TOKENS).enumerate() {
        let layer = layer.to_string();
        let args = ["attention", "--layer", &layer];
        let heads: Vec<&[f32]> = expected.chunks(TOKENS * TOKENS).collect();
        for (head, expected) in heads.iter().enumerate() {
            let head = head.to_string();
            let found = golden.npy(&[&args[..], &["--head", &head]].concat(), &shape);
            close(&found, expected);
        }
        let mean: Vec<f32> = (0..TOKENS * TOKENS)
            .map(|i| heads.iter().map(|head| head[i]).sum::<f32>() / N_HEAD as f32)
            .collect();
        close(&golden.npy(&args, &shape), &mean);
    }
}

#[test]
fn a_window_leaves_nothing_to_what_it_has_left_behind() {
    let text = "The king and the queen and the wolf and the fox";
    let report = run(&["attention", "--json", "--window", "4", "--layer", "0", text]).json();
    let rows = report["weights"].as_array().unwrap();
    let weight = |row: usize, column: usize| rows[row][column].as_f64().unwrap();
    for row in 0..rows.len() {
        let sum: f64 = (0..rows.len()).map(|column| weight(row, column)).sum();
        assert!((sum - 1.0).abs() < 1e-5, "row {row}: {sum}");
        for column in 0..rows.len() {
            let seen = column <= row && column + 4 > row;
            assert_eq!(weight(row, column) > 0.0, seen, "{row} {column}");
        }
    }
    // As long as nothing has left the window, it changes nothing.
    let whole = run(&["attention", "--json", "--layer", "0", text]).json();
    assert_eq!(report["weights"][3], whole["weights"][3]);
}

#[test]
fn batches_change_nothing() {
    let text = "Once upon a time there was a king who had three sons";
    for args in [&["attention", "--json"][..], &["embed", "--json", "--layer", "5"]] {
        let expected = run(&[args, &[text]].concat()).json();
        for batch in ["1", "3"] {
            assert_eq!(run(&[args, &["--batch", batch, text]].concat()).json(), expected);
        }
    }
}

#[test]
fn kings_are_near_queens() {
    let report = run(&["embed", "--json", " king", " queen", " wolf"]).json();
    assert_eq!((&report["source"], &report["layer"]), (&"wte".into(), &Value::Null));
    assert_eq!(report["shape"], serde_json::json!([3, 256]));
    let cosine = |a: usize, b: usize| report["cosine_similarity"][a][b].as_f64().unwrap();
    assert!(cosine(0, 1) > cosine(0, 2));
    assert_eq!(cosine(2, 1), cosine(1, 2));
    assert!((cosine(0, 0) - 1.0).abs() < 1e-6);
    assert_eq!(report["vectors"][1]["embedding"].as_array().unwrap().len(), 256);
    assert_eq!(report["texts"][0]["ids"].as_array().unwrap().len(), 1);

    let prefixed = run(&["embed", "--json", "--add-prefix-space", "king", "queen", "wolf"]).json();
    assert_eq!(prefixed["vectors"], report["vectors"]);
    let lines = run_with_stdin(&["embed", "--json", "-"], b" king\n\n queen\n wolf\n").json();
    assert_eq!(lines, report);

    let table = run(&["embed", " king", " queen", " wolf"]).ok();
    assert_eq!(table.lines().count(), 4);
    assert!(table.lines().nth(1).unwrap().starts_with("king            1.000"), "{table}");
    // Too many for a table: the nearest ones.
    let words = run(&["embed"]).ok();
    assert!(words.lines().any(|line| line.starts_with("king           queen 0.")), "{words}");
}

#[test]
fn tokens_can_be_looked_at_one_by_one() {
    let report = run(&["embed", "--json", "--pool", "none", "Once upon", " a"]).json();
    let vectors = report["vectors"].as_array().unwrap();
    let places: Vec<_> = vectors.iter().map(|v| (v["text"].clone(), v["token"].clone())).collect();
    let place = |text: u32, token: u32| (Value::from(text), Value::from(token));
    assert_eq!(places, [place(0, 0), place(0, 1), place(1, 0)]);
}

#[test]
fn heat_maps_of_characters() {
    let command = |locale: &str, args: &[&str]| {
        let mut command = crate::run::command(&[&["attention"], args, &["The king, 日"]].concat());
        let output = command.env("LC_ALL", locale).env("COLUMNS", "80").output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let blocks = command("C.UTF-8", &[]);
    assert!(blocks.contains('█') && blocks.starts_with("layer 5, mean of 4 heads\n"), "{blocks}");
    let plain = command("C", &["--layer", "1", "--head", "2"]);
    assert!(plain.is_ascii() && plain.starts_with("layer 1, head 2\n"), "{plain}");
    // Seven tokens: the character is three.
    assert_eq!(plain.lines().count(), 1 + 1 + 7 + 1);
    assert!(command("C", &["--color", "always"]).contains("\x1b[48;5;"));

    let long = run(&["attention", &"word ".repeat(200)]);
    assert!(long.stderr.contains("the last "), "{}", long.stderr);
}

#[cfg(feature = "plot")]
mod pictures {
    use std::path::Path;

    use super::*;

    /// Draws, and gives the file.
    fn draw(folder: &Path, name: &str, args: &[&str]) -> Vec<u8> {
        let path = folder.join(name);
        let run = run(&[args, &["--plot", path.to_str().unwrap()]].concat());
        assert!(run.stderr.contains(name), "{}", run.stderr);
        assert_eq!(run.ok(), "");
        // Nothing is left beside it.
        assert!(
            fs::read_dir(folder)
                .unwrap()
                .all(|file| { !file.unwrap().file_name().to_string_lossy().ends_with(".tmp") })
        );
        fs::read(&path).unwrap()
    }

    #[test]
    fn svg_has_the_labels() {
        let folder = tempfile::tempdir().unwrap();
        let words = String::from_utf8(draw(folder.path(), "a.svg", &["embed"])).unwrap();
        assert!(words.starts_with("<svg ") && words.trim_end().ends_with("</svg>"));
        for label in ["king", "queen", "wte: PCA", "wte: t-SNE, perplexity 15, seed 0"] {
            assert!(words.contains(&format!("\n{label}\n")), "{label}");
        }
        // Two maps of 45 words.
        assert_eq!(words.matches("<circle").count(), 90);
        let attention = draw(folder.path(), "b.svg", &["attention", "The <king>"]);
        let attention = String::from_utf8(attention).unwrap();
        assert!(attention.contains("&lt;") && attention.contains("\nattention, layer 5, mean of"));
    }

    #[test]
    fn png_is_png_and_ends_of_names_may_be_in_capitals() {
        let folder = tempfile::tempdir().unwrap();
        for (name, args) in [("a.png", &["embed"][..]), ("b.PNG", &["attention", "The king"])] {
            let bytes = draw(folder.path(), name, args);
            assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xaeB`\x82"));
        }
    }

    #[test]
    fn a_seed_gives_the_same_map() {
        let folder = tempfile::tempdir().unwrap();
        let map = |seed| {
            let tsne = ["embed", "--projection", "tsne", "--perplexity", "5", "--seed", seed];
            draw(folder.path(), "x.svg", &tsne)
        };
        assert_eq!(map("1"), map("1"));
        assert_ne!(map("1"), map("2"));
    }
}
