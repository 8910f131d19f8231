//! `generate --save-session` and `--load-session`

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::run::{MODEL, Run, run};

/// A folder, and the name of a file in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().into()
    }
}

fn generate(args: &[&str]) -> Run {
    run(&[&["generate"], args].concat())
}

fn json(args: &[&str]) -> Value {
    run(&[&["generate", "--json"], args].concat()).json()
}

const SAMPLED: [&str; 11] = [
    "The fox said 🦊 to the",
    "--seed",
    "5",
    "--temperature",
    "1.3",
    "--repetition-penalty",
    "1.2",
    "--no-repeat-ngram-size",
    "3",
    "--logit-bias",
    "198=-inf",
];

#[test]
fn a_text_in_two_runs_is_that_of_one() {
    let place = Place::new();
    let file = place.name("a.pgss");
    let whole = generate(&[&SAMPLED[..], &["-n", "60", "-q"]].concat()).ok();
    // Wherever it is cut, also within a character, and on whatever it goes on.
    for first in ["1", "7", "30"] {
        let save = ["-n", first, "-q", "--save-session", &file];
        let begun = generate(&[&SAMPLED[..], &save].concat()).ok();
        let rest = (60 - first.parse::<u32>().unwrap()).to_string();
        let load = ["--load-session", &file, "-n", &rest, "-q", "-t", "2"];
        assert_eq!(generate(&load).ok(), whole);
        let scalar = [&load[..], &["--isa", "scalar", "--no-echo"]].concat();
        let begun = begun.trim_end_matches(['\n', '\u{fffd}']);
        assert_eq!(format!("{begun}{}", generate(&scalar).ok()), whole);
        // On and on.
        let (one, other) = (place.name("b.pgss"), "-n");
        let step = ["--load-session", &file, other, "10", "-q", "--save-session", &one];
        generate(&step).ok();
        let rest = (50 - first.parse::<u32>().unwrap()).to_string();
        assert_eq!(generate(&["--load-session", &one, "-n", &rest, "-q"]).ok(), whole);
    }
}

#[test]
fn texts_go_on_past_the_context() {
    let place = Place::new();
    let file = place.name("a.pgss");
    let options = ["Once", "--overflow", "shadow", "--ignore-eos", "--seed", "2", "-q"];
    let whole = generate(&[&options[..], &["-n", "1100"]].concat()).ok();
    let save = ["-n", "600", "--save-session", &file];
    generate(&[&options[..], &save].concat()).ok();
    assert_eq!(generate(&["--load-session", &file, "-n", "500", "-q"]).ok(), whole);
    // A context that is full can be refilled.
    let stop = ["Once", "--ignore-eos", "--seed", "2", "-n", "600", "--save-session", &file];
    assert_eq!(json(&stop)["stop_reason"], "context_full");
    let full = generate(&["--load-session", &file]);
    assert!(full.stderr.contains("--overflow refill"), "{full:?}");
    let load = ["--load-session", &file, "--overflow", "refill", "-n", "100"];
    assert_eq!(json(&load)["new_tokens"], 100);
}

#[test]
fn options_are_kept_unless_others_are_given() {
    let place = Place::new();
    let file = place.name("a.pgss");
    let save = ["-n", "20", "--kv", "f16", "--strategy", "greedy", "--save-session", &file];
    let saved = json(&[&["The fox"], &save[..]].concat());
    let ids = |report: &Value| report["ids"].as_array().unwrap().clone();
    let load = |options: &[&str]| json(&[&["--load-session", &file, "-n", "5"], options].concat());
    let report = load(&[]);
    assert_eq!((&report["strategy"], &report["kv"]), (&"greedy".into(), &"f16".into()));
    assert_eq!(report["prompt_tokens"], saved["prompt_tokens"].as_u64().unwrap() + 20);
    // A prompt is added; the whole text is one then, which any strategy can continue.
    let longer = load(&[" And then"]);
    assert!(longer["prompt_tokens"].as_u64() > report["prompt_tokens"].as_u64());
    let beams = load(&["--num-beams", "3"]);
    assert_eq!((&beams["strategy"], ids(&beams).len()), (&"beam".into(), 5));
    let sampled = load(&["--strategy", "sample", "--temperature", "2", "--seed", "1"]);
    assert_ne!(ids(&sampled), ids(&report));
    // The prompt alone can be saved, and is not read again.
    json(&["The fox and the crow", "-n", "0", "--seed", "9", "--save-session", &file]);
    let alone = json(&["The fox and the crow", "--seed", "9", "-n", "12"]);
    assert_eq!(ids(&json(&["--load-session", &file, "-n", "12"])), ids(&alone));
}

#[test]
fn what_is_written_does_not_replace_the_model() {
    let place = Place::new();
    let (file, session) = (place.name("x.pgpt"), place.name("x.pgss"));
    fs::write(&file, MODEL).unwrap();
    let dotted = place.name("./x.pgpt");
    for args in [
        &["generate", "The fox", "-n", "5", "--save-session", &file][..],
        &["generate", "The fox", "-n", "5", "--save-session", &dotted],
        &["logits", "--ids", "1", "--npy", &file],
        &["embed", "The fox", "--npy", &file],
        &["attention", "The fox", "--npy", &file],
    ] {
        let line = run(&[args, &["-m", &file]].concat()).error();
        assert!(line.ends_with("the model is there; choose another name"), "{line}");
    }
    assert_eq!(fs::read(&file).unwrap(), MODEL);
    // A session replaces itself.
    generate(&["The fox", "-n", "5", "-q", "-m", &file, "--save-session", &session]).ok();
    let again = ["-n", "5", "-q", "-m", &file, "--load-session", &session, "--save-session"];
    generate(&[&again[..], &[&session]].concat()).ok();
}

#[test]
fn what_cannot_go_on_is_told() {
    let place = Place::new();
    let file = place.name("a.pgss");
    let save = ["The fox", "-n", "5", "-q", "--save-session", &file];
    generate(&save).ok();
    for (args, code, told) in [
        (&["--kv", "f32"][..], 2, "--kv f32"),
        (&["--window", "100"], 2, "was saved with 512"),
        (&["--keep", "3"], 2, "--keep 3"),
        (&["--overflow", "shadow"], 1, "leave out --overflow"),
        (&["--save-session", &file, "--num-beams", "2"], 2, "--save-session keeps one text"),
    ] {
        let run = generate(&[&["--load-session", &file], args].concat());
        assert_eq!(run.code, Some(code), "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
    }
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 9]).unwrap();
    let cut = generate(&["--load-session", &file]);
    assert!(cut.code == Some(1) && cut.stderr.contains("save it again"), "{cut:?}");
    fs::write(&file, b"Once upon a time").unwrap();
    let foreign = generate(&["--load-session", &file]);
    assert!(foreign.stderr.contains("not a saved session"), "{foreign:?}");
    assert_eq!(generate(&["--load-session", &place.name("none")]).code, Some(1));
    // Found out before the work.
    let nowhere = place.name("no/folder");
    let run = generate(&["The fox", "--save-session", &nowhere]);
    assert!(run.stdout.is_empty() && run.stderr.contains("create it first"), "{run:?}");
    let long = place.name(&"x".repeat(300));
    let run = generate(&["The fox", "--save-session", &long]);
    assert!(run.stdout.is_empty() && run.stderr.contains("choose another place"), "{run:?}");
    // The end of a text is its end.
    let greedy = ["--strategy", "greedy", "--logit-bias", "4095=1000", "-q"];
    let end = generate(&[&["The fox", "--save-session", &file], &greedy[..]].concat());
    assert_eq!(end.code, Some(0), "{end:?}");
    let ended = generate(&["--load-session", &file]);
    assert!(ended.stderr.contains("the model has ended this text"), "{ended:?}");
    assert_eq!(generate(&["--load-session", &file, "More", "--min-new-tokens", "3"]).code, Some(0));
}
