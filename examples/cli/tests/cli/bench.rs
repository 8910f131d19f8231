//! Measuring, with so little work that it says nothing about speed.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::reports::has_keys;
use crate::run::{MODEL, isas, run};

const TASK: [&str; 11] =
    ["bench", "-p", "16", "-n", "4", "--depth", "8,0", "--repeat", "2", "-t", "2"];

fn bench(options: &[&str]) -> Value {
    run(&[&TASK[..], options, &["--json"]].concat()).json()
}

/// The bundled model as a file, in a folder that must live as long.
fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    fs::write(&path, MODEL).unwrap();
    (folder, path)
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[track_caller]
fn is_result(result: &Value) {
    has_keys(
        result,
        &[
            "model",
            "kv",
            "file_bytes",
            "load_seconds",
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "time_to_first_token_seconds",
            "first_run_time_to_first_token_seconds",
            "weight_bytes_per_token",
        ],
    );
    assert_eq!(result["roofline_fraction"], result["decode"][0]["roofline_fraction"]);
    assert_eq!(result["prefill_roofline_fraction"], result["prefill"][0]["roofline_fraction"]);
    let roofline = &result["roofline"];
    assert!(number(&roofline["read_bytes_per_second"]) > 1e6);
    assert!(number(&roofline["macs_per_second"]) > 1e6);
    for (i, depth) in [0, 8].into_iter().enumerate() {
        let (prefill, decode) = (&result["prefill"][i], &result["decode"][i]);
        assert_eq!((&prefill["depth"], &decode["depth"]), (&depth.into(), &depth.into()));
        assert_eq!((&prefill["tokens"], &decode["tokens"]), (&16.into(), &4.into()));
        has_keys(prefill, &["prefill_tokens_per_second", "macs_per_second"]);
        has_keys(decode, &["decode_tokens_per_second", "weight_bytes_per_second"]);
        assert!(number(&prefill["roofline_fraction"]) > 0.0);
        assert!(number(&decode["roofline_fraction"]) > 0.0);
        let (p50, p99) =
            (number(&decode["token_seconds_p50"]), number(&decode["token_seconds_p99"]));
        assert!(0.0 < p50 && p50 <= p99);
    }
    let cache = |i: usize| number(&result["decode"][i]["cache_bytes_per_token"]);
    // Positions 1 to 4, and 9 to 12.
    assert!((cache(1) / cache(0) - 10.5 / 2.5).abs() < 0.01);
}

#[test]
fn compares_with_f32_by_itself() {
    let report = bench(&[]);
    has_keys(&report, &["version", "cpu", "isa", "repeat", "peak_rss_bytes"]);
    assert_eq!((&report["threads"], &report["repeat"]), (&2.into(), &2.into()));
    for key in ["read_bytes_per_second", "int8_macs_per_second", "f32_macs_per_second"] {
        assert!(number(&report[key]) > 1e6, "{key}");
    }
    assert!(number(&report["read_buffer_bytes"]) > number(&report["weight_bytes_per_token"]));
    let baseline = &report["baseline"];
    is_result(&report);
    is_result(baseline);
    assert_eq!((&report["kv"], &baseline["kv"]), (&"q8".into(), &"f32".into()));
    assert_eq!(report["roofline"]["arithmetic"], "int8");
    assert_eq!(baseline["roofline"]["arithmetic"], "f32");
    assert_eq!(baseline["model"], "bundled model in f32");
    let bits = number(&baseline["bits_per_weight"]);
    assert!((bits - 32.0).abs() < 0.1, "{bits}");
    // As many bytes as a token reads, in whole lines.
    let read = number(&report["roofline"]["read_buffer_bytes"]);
    assert!((number(&report["weight_bytes_per_token"]) - read).abs() < 64.0);
    // The baseline is not part of it.
    assert!(number(&report["peak_rss_bytes"]) < number(&baseline["file_bytes"]));

    let speed = |result: &Value| number(&result["decode"][1]["decode_tokens_per_second"]);
    let ratio = number(&report["ratio"]["decode_tokens_per_second"][1]);
    assert!((ratio * speed(baseline) / speed(&report) - 1.0).abs() < 1e-6);
}

#[test]
fn compares_with_a_file_or_with_nothing() {
    let (_folder, path) = file();
    let path = path.to_str().unwrap();
    let report = bench(&["--baseline", path]);
    assert_eq!(report["baseline"]["model"], path);
    is_result(&report["baseline"]);
    let alone = bench(&["-m", path, "--no-baseline"]);
    is_result(&alone);
    assert!(alone.get("baseline").is_none() && alone.get("ratio").is_none());
}

#[test]
fn fractions_are_shares_of_the_limits() {
    // One round at one depth: medians are what they are medians of.
    let task =
        ["bench", "-p", "32", "-n", "32", "--repeat", "1", "-t", "1", "--no-baseline", "--json"];
    for isa in isas() {
        let measure = || {
            let report =
                run(&[&task[..], &["--isa", &isa, "--kv", "f16", "--window", "8"]].concat());
            let report = report.json();
            assert_eq!((&report["isa"], &report["kv"]), (&isa.as_str().into(), &"f16".into()));
            let limit = |key: &str| number(&report["roofline"][key]);
            let (prefill, decode) = (&report["prefill"][0], &report["decode"][0]);
            let read = number(&decode["weight_bytes_per_second"]) / limit("read_bytes_per_second");
            let done = number(&prefill["macs_per_second"]) / limit("macs_per_second");
            assert!((number(&report["roofline_fraction"]) / read - 1.0).abs() < 1e-6);
            assert!((number(&report["prefill_roofline_fraction"]) / done - 1.0).abs() < 1e-6);
            let bytes = number(&report["weight_bytes_per_token"]);
            let speed = number(&report["decode_tokens_per_second"]);
            assert!(
                (number(&decode["weight_bytes_per_second"]) / speed / bytes - 1.0).abs() < 1e-6
            );
            [read, done]
        };
        // A limit measured while another program took the CPU is too low, but not time after time.
        let possible = |fractions: [f64; 2]| fractions.iter().all(|f| (1e-4..1.3).contains(f));
        assert!((0..10).any(|_| possible(measure())), "{isa} is faster than it can be");
    }
}

#[cfg(feature = "plot")]
#[test]
fn draws_speed_by_depth() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |name: &str, options: &[&str]| {
        let path = folder.path().join(name);
        let task =
            ["bench", "-p", "8", "--repeat", "1", "--json", "--plot", path.to_str().unwrap()];
        let run = run(&[&task[..], options].concat());
        assert!(run.stderr.contains(name), "{}", run.stderr);
        (run.json(), fs::read(path).unwrap())
    };
    let (report, svg) = draw("speed.svg", &["-n", "2", "--no-baseline"]);
    let depths: Vec<u64> = report["decode"]
        .as_array()
        .unwrap()
        .iter()
        .map(|at| at["depth"].as_u64().unwrap())
        .collect();
    assert_eq!((depths.len(), depths[0], depths[7]), (8, 0, 510));
    let svg = String::from_utf8(svg).unwrap();
    for text in ["<svg", "tokens per second", "bundled model, kv q8", "if it only read"] {
        assert!(svg.contains(text), "{text}");
    }
    // A point for each depth; the limit has none.
    assert_eq!(svg.matches("<circle").count(), 8);

    let (report, png) = draw("speed.png", &["--depth", "0,4"]);
    assert!(png.starts_with(b"\x89PNG\r\n"));
    assert_eq!(report["decode"][1]["depth"], 4);
    // Close to the depth.
    assert_eq!(report["decode"][0]["tokens"], 32);
    // Nothing else is left in the folder.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_table_is_for_people() {
    let table = run(&TASK).ok();
    for part in
        ["decode 4 at 8", "prefill 16 at 0", "of limit", "times as fast as bundled model in f32"]
    {
        assert!(table.contains(part), "{part} in {table}");
    }
    // One depth that is not the beginning: nobody waits for a first token there.
    let table = run(&["bench", "-p", "8", "-n", "2", "--depth", "8", "--repeat", "1"]).ok();
    assert!(!table.contains("first token"), "{table}");
}
