//! `generate`: the same text everywhere, and where it ends.

use serde_json::Value;

use crate::run::{isas, run, run_with_stdin};

fn json(args: &[&str]) -> Value {
    run(&[&["generate", "--json", "--quiet"], args].concat()).json()
}

#[test]
fn same_text_on_all_threads_and_instructions() {
    for strategy in [&["--strategy", "greedy"][..], &["--seed", "7"]] {
        let prompt = [strategy, &["-n", "60", "Once upon a time"]].concat();
        let expected = json(&prompt);
        assert_eq!(expected["ids"].as_array().unwrap().len(), 60);
        for isa in isas() {
            for threads in ["1", "2", "4"] {
                let options = ["--isa", &isa, "--threads", threads];
                let found = json(&[&options, &*prompt].concat());
                assert_eq!(found["ids"], expected["ids"], "{isa} {threads}");
                assert_eq!(found["isa"], *isa);
            }
        }
    }
}

#[test]
fn batch_changes_nothing() {
    let prompt = ["--seed", "7", "-n", "20", "There was once a king who had three sons"];
    let expected = json(&prompt);
    for batch in ["1", "3", "1024"] {
        assert_eq!(json(&[&["--batch", batch], &prompt[..]].concat())["ids"], expected["ids"]);
    }
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let text = |seed| run(&["generate", "--seed", seed, "-n", "30", "-q", "The fox"]).ok();
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
    // A seed that was chosen at random is told and can be used again.
    let random = json(&["-n", "30", "The fox"]);
    let again = json(&["-n", "30", "--seed", &random["seed"].to_string(), "The fox"]);
    assert_eq!(again["text"], random["text"]);
}

#[test]
fn streamed_text_is_that_of_json() {
    let args = ["--seed", "3", "-n", "50", "The fox"];
    let text = json(&args)["text"].as_str().unwrap().to_owned();
    let run = run(&[&["generate"], &args[..]].concat());
    assert!(run.stderr.contains("seed 3"), "{}", run.stderr);
    assert_eq!(run.ok().trim_end_matches('\n'), "The fox".to_owned() + text.trim_end_matches('\n'));
}

#[test]
fn reports_have_their_keys() {
    let report = json(&["-n", "8", "x"]);
    for key in [
        "text",
        "ids",
        "prompt_ids",
        "stop_reason",
        "seed",
        "isa",
        "threads",
        "kv",
        "load_seconds",
        "prefill_seconds",
        "decode_seconds",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "peak_rss_bytes",
    ] {
        assert!(report.get(key).is_some(), "{key}");
    }
    assert_eq!(report["stop_reason"], "max_new_tokens");
    assert_eq!(report["new_tokens"], 8);
}

#[test]
fn stops_before_a_text_that_spans_tokens() {
    let args = ["--strategy", "greedy", "-n", "60", "There was once a king"];
    let text = json(&args)["text"].as_str().unwrap().to_owned();
    // From the end of one word into the next.
    let space = 20 + text[20..].find(' ').unwrap();
    let stop = &text[space - 2..space + 2];

    let found = json(&[&["--stop", "no such text", "--stop", stop], &args[..]].concat());
    assert_eq!(found["stop_reason"], "stop_text");
    assert_eq!(found["text"], text.split(stop).next().unwrap());
    let printed = run(&[&["generate", "-q", "--no-echo", "--stop", stop], &args[..]].concat()).ok();
    assert_eq!(printed, text.split(stop).next().unwrap().to_owned() + "\n");
}

#[test]
fn an_empty_prompt_begins_a_text() {
    let report = json(&["-n", "5", "--seed", "1", ""]);
    assert_eq!(report["prompt_ids"], serde_json::json!([4095]));
    let from_stdin = run_with_stdin(&["generate", "-n", "5", "--seed", "1", "--json"], b"").json();
    assert_eq!(from_stdin["ids"], report["ids"]);
}

#[test]
fn a_prompt_from_stdin_is_that_of_the_command_line() {
    let options = ["generate", "--json", "--seed", "1", "-n", "5"];
    let expected = json(&["--seed", "1", "-n", "5", "The fox"]);
    for (extra, stdin) in [(None, "The fox"), (Some("-"), "The fox\n"), (None, "The fox\r\n")] {
        let args: Vec<&str> = options.into_iter().chain(extra).collect();
        let found = run_with_stdin(&args, stdin.as_bytes()).json();
        assert_eq!(found["prompt_ids"], expected["prompt_ids"]);
        assert_eq!(found["ids"], expected["ids"]);
    }
}

#[test]
fn the_prompt_is_printed_before_the_text() {
    let args = ["-n", "3", "--seed", "1", "The fox"];
    let new = json(&args)["text"].as_str().unwrap().to_owned();
    assert!(!new.contains("The fox"));
    let print = |more: &[&str]| run(&[&["generate", "-q"], more, &args[..]].concat()).ok();
    assert_eq!(print(&[]), format!("The fox{new}\n"));
    assert_eq!(print(&["--no-echo"]), format!("{new}\n"));
    // A stop text in the prompt stops nothing: only new text is looked at.
    assert_eq!(print(&["--stop", "fox"]), format!("The fox{new}\n"));
}

#[test]
fn a_full_context_ends_the_text_and_says_so() {
    let prompt = "king ".repeat(255);
    let run = run(&["generate", "--json", "--ignore-eos", "-n", "500", &prompt]);
    assert!(run.stderr.contains("the context of 512 tokens is full"), "{}", run.stderr);
    let report = run.json();
    assert_eq!(report["stop_reason"], "context_full");
    // The last position's logits still give a token.
    let count = |key: &str| report[key].as_array().unwrap().len();
    assert_eq!(count("prompt_ids") + count("ids"), 513);
}

#[test]
fn the_models_end_of_text_is_not_printed() {
    // A text that ends within the context, found by trying seeds.
    let ended =
        (0..20).map(|seed| json(&["-n", "500", "--seed", &seed.to_string(), "\n\nThe End."]));
    let report = ended.into_iter().find(|report| report["stop_reason"] == "end_of_text").unwrap();
    assert!(!report["text"].as_str().unwrap().contains("<|endoftext|>"));
    assert!(!report["ids"].as_array().unwrap().contains(&4095.into()));
}

#[test]
fn a_window_and_other_caches_work() {
    for options in [["--window", "32"], ["--kv", "f16"], ["--kv", "f32"]] {
        let report = json(&[&options[..], &["-n", "100", "--ignore-eos", "The fox"]].concat());
        assert_eq!(report["new_tokens"], 100);
    }
}
