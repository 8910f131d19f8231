//! The program: output, exit codes, what it leaves behind.
#![cfg(feature = "cli")]

mod checkpoint;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use checkpoint::{names, tiny};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pocketgpt-quantize"))
}

fn run(folder: &Path, args: &[&str]) -> Output {
    program().args(args).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::str::from_utf8(&output.stdout).unwrap()
}

/// The one line of stderr, with the exit code that goes with it.
fn error(output: &Output, code: i32) -> &str {
    assert_eq!(output.status.code(), Some(code));
    let text = std::str::from_utf8(&output.stderr).unwrap();
    assert!(output.stdout.is_empty() && text.starts_with("error: "), "{text}");
    text
}

#[test]
fn converts_and_inspects() {
    let folder = tiny();
    let path = folder.path();
    let output = run(path, &["convert", ".", "-o", "q4.pgpt", "--to", "q4", "--report", "r.json"]);
    let table = stdout(&output);
    assert!(output.stderr.is_empty(), "progress is for terminals");
    assert!(
        table.contains("h.1.mlp.c_proj.weight") && table.contains("bits per weight"),
        "{table}"
    );
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.join("r.json")).unwrap()).unwrap();
    assert_eq!(report["recipe"]["head"], "q8");

    let output = run(path, &["convert", ".", "-o", "q8.pgpt", "--json", "-t", "1"]);
    let json: serde_json::Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(json["recipe"]["to"], "q8");
    assert_eq!(stdout(&run(path, &["convert", ".", "-o", "q8.pgpt", "--quiet"])), "");

    let text = run(path, &["inspect", "q4.pgpt"]);
    assert!(stdout(&text).contains("tokenizer: 512 entries"), "{}", stdout(&text));
    let json = run(path, &["inspect", "q4.pgpt", "--json"]);
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!((&json["kind"], &json["config"]["n_embd"]), (&"weight_file".into(), &64.into()));
    let text = run(path, &["inspect", "."]);
    assert!(stdout(&text).contains("transformer.h.0.attn.c_attn.weight"));
    assert!(stdout(&run(path, &["completions", "bash"])).contains("pocketgpt-quantize"));
}

#[test]
fn exit_codes() {
    let folder = tiny();
    let path = folder.path();
    let before = names(path);
    let text = run(path, &["convert", "nowhere", "-o", "x.pgpt"]);
    assert_eq!(error(&text, 1).lines().count(), 1);
    error(&run(path, &["inspect", "config.json"]), 1);
    for args in [
        &["convert", ".", "-o", "nowhere/x.pgpt"][..],
        // Told before the work, not after it.
        &["convert", ".", "-o", "x.pgpt", "--report", "nowhere/r.json"],
    ] {
        let output = run(path, args);
        let line = error(&output, 1);
        assert!(line.ends_with(": there is no such folder; create it first\n"), "{line}");
        assert!(!line.contains(".tmp"), "{line}");
    }
    error(&run(path, &["convert", ".", "-o", "x.pgpt", "--report", "."]), 1);
    error(&run(path, &["convert", "."]), 2);
    error(&run(path, &["convert", ".", "-o", "x.pgpt", "--to", "q5"]), 2);
    error(&run(path, &["convert", ".", "-o", "x", "--no-tokenizer", "--tokenizer", "."]), 2);
    error(&run(path, &["convert", ".", "-o", "x.pgpt", "--threads", "0"]), 2);
    assert!(error(&run(path, &["synth", "--preset", "tiny", "-o", "."]), 1).contains("--force"));
    assert_eq!(names(path), before);
    stdout(&run(path, &["synth", "--preset", "tiny", "-o", ".", "--force"]));
    stdout(&run(path, &["synth", "--preset", "tiny", "-o", "new/folder", "--dtype", "bf16"]));
    stdout(&run(path, &["convert", "new/folder", "-o", "x.pgpt"]));
}

#[test]
fn a_broken_pipe_ends_quietly() {
    let folder = tiny();
    let mut child = program()
        .args(["inspect", "."])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(unix)]
#[test]
fn an_interrupt_removes_what_was_begun() {
    interrupt_when_begun(&["synth", "--preset", "gpt2-xl", "-o", "."]);
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_calibration() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/model");
    let model = model.to_str().unwrap();
    interrupt_when_begun(
        &[
            ["convert", model, "-o", "q4.pgpt", "--to", "q4"].as_slice(),
            &["--calibration-tokens", "4096"],
        ]
        .concat(),
    );
}

/// Ctrl-C as soon as there is a file: the program says so, and leaves nothing.
#[cfg(unix)]
fn interrupt_when_begun(args: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut child =
        program().args(args).current_dir(folder.path()).stderr(Stdio::piped()).spawn().unwrap();
    while names(folder.path()).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before there was a file");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "error: interrupted\n");
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_report_replaces_neither_the_model_nor_the_checkpoint() {
    let folder = tiny();
    let path = folder.path();
    let config = std::fs::read(path.join("config.json")).unwrap();
    for report in ["out.pgpt", "./out.pgpt", "config.json", "model.safetensors"] {
        let output = run(path, &["convert", ".", "-o", "out.pgpt", "--report", report]);
        assert!(error(&output, 1).contains("give the report another name"));
        assert!(!path.join("out.pgpt").exists());
    }
    assert_eq!(std::fs::read(path.join("config.json")).unwrap(), config);
}

#[cfg(unix)]
#[test]
fn devices_are_not_replaced() {
    let folder = tiny();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for args in [
        &["convert", ".", "-o", "socket"][..],
        &["convert", ".", "-o", "out.pgpt", "--report", "socket"],
    ] {
        let output = run(folder.path(), args);
        assert!(error(&output, 1).contains("not a regular file"));
        assert!(!std::fs::metadata(&socket).unwrap().is_file());
    }
}

/// `/dev/zero`, or what a program writes that does not end, would take all of the memory.
#[test]
fn texts_without_end_are_refused() {
    let folder = tiny();
    let path = folder.path();
    run(path, &["convert", ".", "-o", "out.pgpt", "-q"]);
    std::fs::File::create(path.join("long.txt")).unwrap().set_len((64 << 20) + 1).unwrap();
    for args in [
        &["convert", ".", "-o", "q4.pgpt", "--to", "q4", "--calibrate", "long.txt"][..],
        &["report", "out.pgpt", "--reference", "out.pgpt", "--text", "long.txt"],
    ] {
        let output = run(path, args);
        assert!(error(&output, 1).contains("long.txt: the text is longer than 67108864 bytes"));
    }
    let none = ["convert", ".", "-o", "q4.pgpt", "--to", "q4", "--calibration-tokens", "0"];
    assert_eq!(run(path, &none).status.code(), Some(2));
}

#[test]
fn an_error_is_one_line_whatever_a_name_holds() {
    let folder = tiny();
    let output = run(folder.path(), &["inspect", "no\nsuch\x1b[31mfile"]);
    let line = error(&output, 1);
    assert_eq!(line.trim_end_matches('\n').chars().filter(|c| c.is_control()).count(), 0);
}

#[test]
fn a_number_of_threads_that_nobody_has_is_not_believed() {
    let folder = tiny();
    let args = ["synth", "--preset", "tiny", "-o", "new"];
    let mut program = program();
    program.args(args).env("RAYON_NUM_THREADS", "100000000").current_dir(&folder);
    stdout(&program.output().unwrap());
}
