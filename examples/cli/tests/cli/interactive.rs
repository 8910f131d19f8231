//! `interactive`: lines in, answers out, at a terminal or not.

use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::run::{Run, command, run, run_with_stdin};

fn piped(args: &[&str], stdin: &str) -> Run {
    run_with_stdin(&[&["interactive", "--seed", "1", "-n", "12"], args].concat(), stdin.as_bytes())
}

/// The answers of a run that worked, as JSON.
fn answers(args: &[&str], stdin: &str) -> Vec<Value> {
    let stdout = piped(&[&["--json"], args].concat(), stdin).ok();
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u64> {
    value["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
}

#[test]
fn an_answer_is_what_generate_writes() {
    let expected = run(&["generate", "--json", "--seed", "1", "-n", "12", "Once upon a time"]);
    let expected = expected.json();
    let found = answers(&[], "Once upon a time\n");
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0]["text"], &found[0]["ids"], &found[0]["stop_reason"]),
        (&expected["text"], &expected["ids"], &expected["stop_reason"])
    );
    let printed = piped(&["--quiet"], "Once upon a time");
    assert_eq!(printed.stderr, "");
    assert_eq!(printed.ok(), format!("{}\n", expected["text"].as_str().unwrap()));
}

#[test]
fn the_text_goes_on_from_line_to_line() {
    let greedy = ["--strategy", "greedy"];
    let found = answers(&greedy, "Once upon a time\nThe queen said\n\n");
    let text = |answer: &Value| answer["text"].as_str().unwrap().to_owned();
    // The same as one prompt with all that was before.
    let prompt = format!("Once upon a time{}\nThe queen said", text(&found[0]));
    let whole = run(&["generate", "--json", "--strategy", "greedy", "-n", "24", &prompt]).json();
    assert_eq!([ids(&found[1]), ids(&found[2])].concat(), ids(&whole));

    // After /reset it is a new text.
    let again = answers(&greedy, "The fox\n/reset\nOnce upon a time\n");
    assert_eq!(ids(&again[1]), ids(&found[0]));
    let first = found[0]["context_tokens"].as_u64().unwrap();
    assert_eq!(first, 4 + ids(&found[0]).len() as u64);
}

#[test]
fn what_stands_around_lines_can_be_chosen() {
    let around = ["--strategy", "greedy", "--in-prefix", "A: ", "--in-suffix", "\nB:"];
    let found = answers(&around, "Good morning\nWho are you\n");
    let text = found[0]["text"].as_str().unwrap();
    let prompt = format!("Good morning\nB:{text}A: Who are you\nB:");
    let whole = run(&["generate", "--json", "--strategy", "greedy", "-n", "12", &prompt]).json();
    assert_eq!(ids(&found[1]), ids(&whole));
}

#[test]
fn options_change_on_the_way() {
    let run = piped(&[], "/set max_new_tokens 3\n/set strategy=greedy\n/set\nThe fox\n/stats\n");
    for part in ["max-new-tokens 3, strategy greedy,", "answers: 1", "new: 3 tokens", "seed 1"] {
        assert!(run.stderr.contains(part), "{part} in {}", run.stderr);
    }
    assert_eq!(run.ok().lines().count(), 1);
    let stopped = answers(&["--strategy", "greedy"], "/set stop a\nThe queen said\n");
    assert_eq!(stopped[0]["stop_reason"], "stop_text");
    assert!(!stopped[0]["text"].as_str().unwrap().contains('a'));
}

#[test]
fn every_strategy_goes_on_with_the_text() {
    let lines = "Once upon a time\nThe queen said\n\n";
    for strategy in [
        &["--num-beams", "3", "--early-stopping", "true"][..],
        &["--penalty-alpha", "0.6"],
        &["--strategy", "greedy", "--prompt-lookup", "5"],
    ] {
        let found = answers(strategy, lines);
        assert_eq!(found.len(), 3);
        let mut prompt = "Once upon a time".to_owned();
        for (answer, next) in found.iter().zip(["\nThe queen said", "", ""]) {
            let args = [&["generate", "--json", "-n", "12"], strategy, &[&*prompt]].concat();
            let whole = run(&args).json();
            assert_eq!(ids(answer), ids(&whole), "{prompt}");
            prompt += answer["text"].as_str().unwrap();
            prompt += next;
        }
        // What the session can do it was made for.
        assert!(!answers(strategy, "/set no-repeat-ngram-size 2\nThe fox\n").is_empty());
    }
    let line = piped(&["--num-beams", "2"], "/set num-beams 3\n").error();
    assert!(line.contains("without the memory for this"), "{line}");
    let usage = piped(&["--num-return-sequences", "2"], "");
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

#[test]
fn a_slash_can_be_text() {
    let ids_of = |line: &str| ids(&answers(&["--strategy", "greedy"], line)[0]);
    let whole = run(&["generate", "--json", "--strategy", "greedy", "-n", "12", "/quit"]).json();
    assert_eq!(ids_of("//quit\n"), ids(&whole));
    assert!(answers(&[], "/quit\nThe fox\n").is_empty());
}

#[test]
fn errors_of_a_pipe_end_the_program() {
    for (stdin, cause) in [
        ("/fly\nThe fox\n", "/fly: there is no such command"),
        ("/set temperature -1\n", "a number above 0"),
        ("/set wings 2\n", "there is no such option"),
        (&"word ".repeat(600), "512 are left; /reset"),
    ] {
        let line = piped(&[], stdin).error();
        assert!(line.contains(cause), "{line}");
    }
    let line = run_with_stdin(&["interactive"], b"\xff\n").error();
    assert!(line.contains("not UTF-8"), "{line}");
}

#[test]
fn a_full_context_can_be_reset() {
    let text = "king ".repeat(254);
    let long = |stdin: String| {
        run_with_stdin(&["interactive", "--ignore-eos", "-n", "600"], stdin.as_bytes())
    };
    let run = long(format!("{text}\n/reset\nThe fox\n"));
    assert!(run.stderr.contains("the context of 512 tokens is full; /reset"), "{}", run.stderr);
    run.ok();
    let full = long(format!("{text}\n\n"));
    assert_eq!(full.code, Some(1));
    assert!(full.stderr.ends_with("it would go on\n"));
}

#[test]
fn an_empty_line_begins_a_text() {
    let found = answers(&[], "\n");
    let whole = run(&["generate", "--json", "--seed", "1", "-n", "12", ""]).json();
    assert_eq!(ids(&found[0]), ids(&whole));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let args = ["interactive", "--isa", "scalar", "-t", "1", "--ignore-eos", "-n", "480"];
    let mut child = command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let interrupt = |pid: u32| {
        let status = std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status();
        assert!(status.unwrap().success());
    };
    stdin.write_all(b"The fox\n").unwrap();
    // The answer has begun.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    interrupt(child.id());
    stdin.write_all(b"/set max-new-tokens 5\n\n/stats\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("stopped; an empty line goes on"), "{stderr}");
    assert!(stderr.contains("answers: 2"), "{stderr}");

    // Between two answers it ends the program.
    let mut child = command(&args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"/stats\n").unwrap();
    child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A person at a terminal.
#[cfg(all(unix, feature = "line-editing"))]
mod terminal {
    use rexpect::session::{PtySession, spawn_command};

    fn start(args: &[&str]) -> PtySession {
        let program = env!("CARGO_BIN_EXE_pocketgpt");
        let mut command = std::process::Command::new(program);
        command.arg("interactive").args(args).env("TERM", "xterm");
        let mut session = spawn_command(command, Some(60_000)).unwrap();
        session.exp_string("/help tells the commands").unwrap();
        session.exp_string("> ").unwrap();
        session
    }

    #[test]
    fn lines_are_edited_and_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let history = folder.path().join("history");
        let path = history.to_str().unwrap();
        let mut session = start(&["--history", path, "-n", "3", "--strategy", "greedy"]);
        // Backspace mends the line; what it was is in the history.
        session.send_line("The foy\u{7f}x").unwrap();
        session.exp_string("> ").unwrap();
        session.send_line("/fly").unwrap();
        session.exp_string("/fly: there is no such command").unwrap();
        session.exp_string("> ").unwrap();
        session.send_line("/stats").unwrap();
        session.exp_string("answers: 1").unwrap();
        session.exp_string("> ").unwrap();
        // Ctrl-C while typing drops the line; Ctrl-D ends.
        session.send("nonsense").unwrap();
        session.send_control('c').unwrap();
        session.exp_string("Ctrl-D or /quit ends").unwrap();
        session.exp_string("> ").unwrap();
        session.send_control('d').unwrap();
        session.exp_eof().unwrap();
        let kept = std::fs::read_to_string(&history).unwrap();
        assert!(kept.contains("The fox\n/fly\n/stats\n"), "{kept}");

        // The next time the arrow key brings the last line back.
        let mut session = start(&["--history", path]);
        session.send("\u{1b}[A").unwrap();
        session.send_line("").unwrap();
        session.exp_string("answers: 0").unwrap();
        session.send_line("/quit").unwrap();
        session.exp_eof().unwrap();
    }

    #[test]
    fn ctrl_c_stops_an_answer() {
        let mut session = start(&["--isa", "scalar", "-t", "1", "--ignore-eos", "-n", "480"]);
        session.send_line("Once upon a time").unwrap();
        session.exp_string("\r\n").unwrap();
        session.exp_regex("[a-z]").unwrap();
        session.send_control('c').unwrap();
        session.exp_string("stopped; an empty line goes on").unwrap();
        session.send_line("/quit").unwrap();
        session.exp_eof().unwrap();
    }
}
