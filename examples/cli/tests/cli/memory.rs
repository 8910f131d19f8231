//! What a run takes is what `plan` says, and the program itself.
#![cfg(target_os = "linux")]

use std::fs;

use serde_json::Value;

use crate::run::{MODEL, run};

/// What a run had in memory at most, less what was planned: the program, its libraries and stacks.
#[track_caller]
fn unplanned(model: &str, options: &[&str]) -> i64 {
    let bytes = |report: &Value, key: &str| report[key].as_i64().unwrap();
    let plan = run(&[&["plan", "--json", "-m", model], options].concat()).json();
    // A long prompt and the whole context: all that is planned is used.
    let prompt = "The fox and the crow. ".repeat(60);
    let generate = ["generate", "--json", "--ignore-eos", "-m", model, &prompt];
    let report = run(&[&generate, options].concat()).json();
    assert_eq!(report["stop_reason"], "context_full");
    bytes(&report, "peak_rss_bytes") - bytes(&plan, "total_bytes")
}

#[test]
fn what_runs_take_is_planned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    fs::write(&path, MODEL).unwrap();
    let model = path.to_str().unwrap();
    let plain = unplanned(model, &["-n", "600"]);
    assert!((0..24 << 20).contains(&plain), "{plain}");
    // From 1.6 to 6.3 MB of cache, from 0.2 to 5 MB of scratch.
    for options in [
        &["--kv", "f32"][..],
        &["--kv", "f16", "--batch", "16", "-t", "1"],
        &["--batch", "400", "-t", "4", "--strategy", "greedy"],
    ] {
        let other = unplanned(model, &[&["-n", "600"], options].concat());
        assert!((plain - other).abs() < 2 << 20, "{options:?}: {plain} and {other}");
    }
}
