//! The commands that tell about a model, a text, or this machine.

use std::fs;

use pocketgpt_quantize::{ConvertOptions, Encoding, convert};
use serde_json::Value;

use crate::run::{MODEL, npy_numbers, repository, run};

#[track_caller]
pub fn has_keys(report: &Value, keys: &[&str]) {
    for key in keys {
        assert!(report.get(key).is_some(), "{key} in {report}");
    }
}

#[test]
fn tokens_cover_the_text() {
    let text = "Once upon a time, 日本 🦀";
    let report = run(&["tokenize", "--json", text]).json();
    has_keys(&report, &["token_count", "text_bytes"]);
    assert_eq!(report["decodes_back"], true);
    let tokens = report["tokens"].as_array().unwrap();
    let mut end = Value::from(0);
    for token in tokens {
        assert_eq!(token["start_byte"], end);
        end = token["end_byte"].clone();
    }
    assert_eq!(end, text.len());

    let ids = run(&["tokenize", "--ids", text]).ok();
    let listed: Vec<String> = tokens.iter().map(|token| token["id"].to_string()).collect();
    assert_eq!(ids.trim_end(), listed.join(","));
    assert_eq!(report["decoded"], text);
    let table = run(&["tokenize", text]);
    assert!(table.stderr.contains("the same text"));
    assert_eq!(table.ok().lines().count(), 1 + tokens.len());
}

#[test]
fn colours_only_where_they_are_wanted() {
    let coloured = run(&["tokenize", "--color", "always", "a b"]).ok();
    assert!(coloured.contains("\x1b[38;5;16;48;5;153ma\x1b[0m"), "{coloured:?}");
    // Standard output is no terminal here.
    for color in ["auto", "never"] {
        assert!(!run(&["tokenize", "--color", color, "a b"]).ok().contains('\x1b'));
    }
}

#[test]
fn info_tells_what_each_kind_of_matrix_lost() {
    let info = run(&["info", "--json", "--tensors"]).json();
    let matrices = info["matrices"].as_array().unwrap();
    assert_eq!(matrices.len(), 6);
    let c_proj = matrices.iter().find(|m| m["role"] == "mlp.c_proj.weight").unwrap();
    assert_eq!((&c_proj["count"], &c_proj["encodings"][0]), (&6.into(), &"q8".into()));
    // The least is that of the tensor it names.
    let name = format!("h.{}.mlp.c_proj.weight", c_proj["snr_db_min_layer"]);
    let tensors = info["tensors"].as_array().unwrap();
    let tensor = tensors.iter().find(|tensor| tensor["name"] == *name).unwrap();
    assert_eq!(tensor["snr_db"], c_proj["snr_db_min"]);
    let parameters =
        |list: &[Value]| -> u64 { list.iter().map(|m| m["parameters"].as_u64().unwrap()).sum() };
    // All but biases and norms.
    let vectors = tensors.iter().filter(|tensor| tensor["rows"] == 1);
    let vectors: u64 = vectors.map(|tensor| tensor["cols"].as_u64().unwrap()).sum();
    assert_eq!(parameters(matrices) + vectors, info["parameters"].as_u64().unwrap());
    let text = run(&["info"]).ok();
    for part in ["6 x mlp.c_proj.weight", "temperature 0.8", "pocketgpt-quantize 0.1.0", "sha256"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn info_and_plan_agree() {
    let info = run(&["info", "--json", "--tensors"]).json();
    has_keys(&info, &["parameters", "bits_per_weight", "encodings", "tokenizer", "metadata"]);
    assert_eq!(info["file_bytes"], MODEL.len());
    assert_eq!(info["config"]["n_ctx"], 512);
    assert_eq!(info["tensors"].as_array().unwrap().len(), 76);
    let plan = run(&["plan", "--json"]).json();
    assert_eq!(info["memory"], plan);
    let bytes = |key: &str| plan[key].as_u64().unwrap();
    let parts = [
        "weights_bytes",
        "kv_cache_bytes",
        "shadow_cache_bytes",
        "history_bytes",
        "scratch_bytes",
        "logits_bytes",
        "branch_tables_bytes",
        "decoding_bytes",
    ];
    assert_eq!(parts.map(bytes).iter().sum::<u64>(), bytes("total_bytes"));
    // Without JSON they are for people, and print.
    assert!(run(&["info", "--tensors"]).ok().contains("h.5.mlp.c_proj.bias"));
    assert!(run(&["plan", "--kv", "f32"]).ok().contains("f32, 512 positions"));
}

#[test]
fn verify_reads_a_whole_file() {
    let report = run(&["verify", "--json"]).json();
    assert_eq!((&report["ok"], &report["tensors"]), (&true.into(), &76.into()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    fs::write(&path, MODEL).unwrap();
    assert!(run(&["verify", path.to_str().unwrap()]).ok().contains(": ok, "));
}

#[test]
fn a_mapped_file_is_the_bundled_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    fs::write(&path, MODEL).unwrap();
    let text = |model: &[&str]| {
        run(&[&["generate", "-q", "--seed", "1", "-n", "20", "The fox"], model].concat()).ok()
    };
    assert_eq!(text(&["-m", path.to_str().unwrap()]), text(&[]));
}

#[test]
fn logits_as_text_json_and_npy() {
    assert!(run(&["logits", "--text", "Once upon a"]).ok().contains("\" time\""));
    let report = run(&["logits", "--text", "Once upon a", "--json"]).json();
    let top = report["positions"][0]["top"].as_array().unwrap();
    assert_eq!((top.len(), &top[0]["token"]), (10, &" time".into()));
    has_keys(&top[0], &["id", "logit", "probability"]);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let npy = ["--npy", path.to_str().unwrap(), "--json"];
    let read = |options: &[&str], shape: &[usize]| {
        let ids = ["logits", "--ids", "3478,813,258"];
        let report = run(&[&ids, options, &npy[..]].concat()).json();
        has_keys(&report, &["ids", "shape", "npy"]);
        npy_numbers(&path, shape)
    };
    let last = read(&[], &[4096]);
    let all = read(&["--all"], &[3, 4096]);
    assert_eq!(all[2 * 4096..], last);
    // Nothing else is left in the folder.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn perplexity_is_near_the_reference() {
    let golden = fs::read_to_string(repository("tests/data/golden/perplexity.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let text = repository("tests/data/text/valid.txt");
    let report = run(&["perplexity", "--json", "--text", text.to_str().unwrap()]).json();
    assert_eq!(report["scored_tokens"], golden["scored_tokens"]);
    assert_eq!(report["stream_tokens"], golden["stream_tokens"]);
    // The reference computes in f32; this is q8 with a q8 cache.
    let (found, expected) = (&report["perplexity"], &golden["perplexity"]);
    let ratio = found.as_f64().unwrap() / expected.as_f64().unwrap();
    assert!((ratio - 1.0).abs() < 2e-3, "{found} {expected}");
    has_keys(&report, &["nats_per_byte", "bits_per_byte", "tokens_per_second"]);
}

#[test]
fn perplexity_compares_with_a_reference() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (f32_file, text) = (path("f32.pgpt"), path("text"));
    let valid = fs::read_to_string(repository("tests/data/text/valid.txt")).unwrap();
    fs::write(&text, valid.lines().take(60).collect::<Vec<_>>().join("\n")).unwrap();
    let options = ConvertOptions { to: Encoding::F32, ..ConvertOptions::default() };
    convert(&repository("examples/model"), f32_file.as_ref(), &options, &mut ()).unwrap();
    let compared = |options: &[&str]| {
        let command = ["perplexity", "--json", "--text", &text, "--reference", &f32_file];
        run(&[&command, options].concat()).json()
    };
    let number = |report: &Value, key: &str| report[key].as_f64().unwrap();
    let same = compared(&["-m", &f32_file]);
    assert_eq!((number(&same, "mean_kl_divergence"), number(&same, "top5_agreement")), (0.0, 1.0));
    assert_eq!((number(&same, "perplexity_ratio"), number(&same, "top1_agreement")), (1.0, 1.0));

    // The bundled model is q8.
    let (all, weights) = (compared(&[]), compared(&["--weights-only"]));
    for report in [&all, &weights] {
        has_keys(report, &["reference_perplexity", "p99_kl_divergence", "max_kl_divergence"]);
        let kl = number(report, "mean_kl_divergence");
        assert!(kl > 1e-6 && kl < 1e-3, "{report}");
        assert!(number(report, "median_kl_divergence") < number(report, "p99_kl_divergence"));
        assert!(number(report, "top1_agreement") > 0.97, "{report}");
        let ratio = number(report, "perplexity") / number(report, "reference_perplexity");
        assert!((ratio - number(report, "perplexity_ratio")).abs() < 1e-9, "{report}");
    }
    assert!(number(&weights, "mean_kl_divergence") < number(&all, "mean_kl_divergence"));
    let table = run(&["perplexity", "--text", &text, "--reference", &f32_file]).ok();
    assert!(table.contains("KL  ") && table.contains(" ± "), "{table}");
}

#[test]
fn completions_for_the_usual_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(&["completions", shell]).ok().contains("perplexity"), "{shell}");
    }
}

#[test]
fn every_command_has_examples() {
    let help = run(&["--help"]).ok();
    let listed = help.split("Commands:\n").nth(1).unwrap();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let commands: Vec<&str> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(commands.len(), 13);
    for command in commands.into_iter().filter(|command| *command != "help") {
        let help = run(&[command, "--help"]).ok();
        let (options, _) = help.split_once("\nExamples:\n").expect(command);
        // A command's own options stand under no other heading.
        for heading in ["\nChoosing tokens:\n", "\nPlotting:\n", "\nRunning:\n"] {
            let shared = options.split_once(heading).map_or("", |(_, shared)| shared);
            assert!(!shared.contains("--json") && !shared.contains("--quiet"), "{command}");
        }
    }
}
