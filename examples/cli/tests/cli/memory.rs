//! What a run takes is what `plan` says, and the program itself.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::run::{MODEL, command, run};

/// With a long prompt and the whole context all that is planned is used.
fn long_prompt() -> String {
    "The fox and the crow. ".repeat(60)
}

/// What a run had in memory at most, less what was planned: the program, its libraries and stacks.
#[track_caller]
fn unplanned(model: &str, options: &[&str]) -> i64 {
    let bytes = |report: &Value, key: &str| report[key].as_i64().unwrap();
    let plan = run(&[&["plan", "--json", "-m", model], options].concat()).json();
    let prompt = long_prompt();
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

/// Bytes in memory, at the moment, that no file stands behind: heap, stacks, and what was written
/// to of the program itself.
fn anonymous_bytes(process: u32) -> i64 {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = maps.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() << 10
}

/// What is planned beside the weights, which are mapped.
fn planned(model: &str, options: &[&str]) -> i64 {
    let plan = run(&[&["plan", "--json", "-m", model], options].concat()).json();
    let bytes = |key: &str| plan[key].as_i64().unwrap();
    bytes("total_bytes") - bytes("weights_bytes")
}

/// What a run has taken from the system when all of the context is used.
#[track_caller]
fn taken(model: &str, options: &[&str]) -> i64 {
    let interactive = ["interactive", "--json", "--ignore-eos", "-m", model, "-n", "600"];
    let mut program = command(&[&interactive, options].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = program.stdin.take().unwrap();
    writeln!(stdin, "{}", long_prompt()).unwrap();
    let mut answer = String::new();
    BufReader::new(program.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let report: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(report["stop_reason"], "context_full");
    // It waits for the next line with all that it has.
    let taken = anonymous_bytes(program.id());
    drop(stdin);
    assert!(program.wait().unwrap().success());
    taken
}

#[test]
fn what_is_taken_from_the_system_is_planned_within_two_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    fs::write(&path, MODEL).unwrap();
    let model = path.to_str().unwrap();
    // Batches as they are by default.
    let most = planned(model, &[]);
    let taken_by_default = taken(model, &[]);
    assert!(taken_by_default < most + (2 << 20), "{taken_by_default} taken, {most} planned");
    for (options, batch, used) in [
        // Interactive, it reads 64 tokens at a time: a page that nobody has written to is not there.
        (&[][..], "128", "64"),
        (&["--kv", "f32"], "128", "64"),
        (&["--kv", "f16", "-t", "1"], "16", "16"),
        (&["-t", "4", "--strategy", "greedy"], "400", "64"),
    ] {
        let with = |batch| [options, &["--batch", batch]].concat();
        let taken = taken(model, &with(batch));
        let (least, most) = (planned(model, &with(used)), planned(model, &with(batch)));
        println!("{options:?}: {taken} taken, {least} to {most} planned");
        // At least 2.5 MB are planned, and half a megabyte is the program's own.
        assert!((least - (1 << 18)..most + (2 << 20)).contains(&taken), "{options:?}: {taken}");
    }
}
