//! Strategies of `generate`, and what `plan` says about them.

use serde_json::Value;

use crate::run::run;

fn json(args: &[&str]) -> Value {
    run(&[&["generate", "--json", "--quiet"], args].concat()).json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

#[test]
fn meaningless_options_are_refused_by_name() {
    for (flag, args) in [
        ("--temperature", &["--strategy", "greedy", "--temperature", "0.5"][..]),
        ("--top-k", &["--strategy", "beam", "--top-k", "5"]),
        ("--top-p", &["--num-beams", "3", "--top-p", "0.5"]),
        ("--min-p", &["--penalty-alpha", "0.6", "--min-p", "0.5"]),
        ("--typical-p", &["--strategy", "greedy", "--typical-p", "0.5"]),
        ("--num-beams", &["--strategy", "sample", "--num-beams", "3"]),
        ("--length-penalty", &["--length-penalty", "2"]),
        ("--early-stopping", &["--early-stopping", "true"]),
        ("--penalty-alpha", &["--num-beams", "2", "--penalty-alpha", "0.5"]),
        ("--num-return-sequences", &["--strategy", "greedy", "--num-return-sequences", "2"]),
        ("--num-return-sequences", &["--num-beams", "2", "--num-return-sequences", "3"]),
        ("--prompt-lookup", &["--num-beams", "2", "--prompt-lookup", "5"]),
        ("--prompt-lookup", &["--num-return-sequences", "2", "--prompt-lookup", "5"]),
        ("--min-new-tokens", &["-n", "5", "--min-new-tokens", "6"]),
        ("--logit-bias", &["--logit-bias", "4096=1"]),
        ("--logit-bias", &["--logit-bias", "king"]),
        ("--logit-bias", &["--logit-bias", "5=nan"]),
        ("--repetition-penalty", &["--repetition-penalty", "1000"]),
        ("--num-beams", &["--num-beams", "65"]),
        ("--prompt-lookup", &["--prompt-lookup", "65"]),
    ] {
        for command in ["generate", "plan"] {
            let mut all = vec![command];
            all.extend(args);
            if command == "generate" {
                all.push("x");
            }
            let run = run(&all);
            assert_eq!((run.code, &*run.stdout), (Some(2), ""), "{all:?} {run:?}");
            assert!(run.stderr.lines().next().unwrap().contains(flag), "{all:?} {}", run.stderr);
        }
    }
}

#[test]
fn beams_come_with_scores_the_best_first() {
    let args = ["--num-beams", "4", "--num-return-sequences", "3", "-n", "20", "Once upon a time"];
    let report = json(&args);
    assert_eq!(report["strategy"], "beam");
    let sequences = array(&report["sequences"]);
    assert_eq!(sequences.len(), 3);
    for key in ["text", "ids", "score", "stop_reason"] {
        assert_eq!(report[key], sequences[0][key], "{key}");
    }
    let scores: Vec<f64> = sequences.iter().map(|s| s["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert_eq!(report["decode_steps"], 19);

    let printed = run(&[&["generate"], &args[..]].concat());
    assert!(printed.stderr.contains("--- 2 of 3, score"), "{}", printed.stderr);
    let expected: String = sequences
        .iter()
        .map(|sequence| format!("Once upon a time{}\n", text(&sequence["text"])))
        .collect();
    assert_eq!(printed.ok(), expected);

    // The options that only beams have change what is found.
    let with = |more: &[&str]| json(&[more, &args[2..]].concat())["ids"].clone();
    let longer = with(&["--num-beams", "4", "--logit-bias", "11=-inf"]);
    assert!(!array(&longer).contains(&11.into()));
    with(&["--strategy", "beam", "--early-stopping", "never", "--length-penalty", "-1"]);
}

#[test]
fn stop_texts_end_beams() {
    let args = ["--num-beams", "3", "--num-return-sequences", "3", "-n", "30", "Once upon a time"];
    let report = json(&[&["--stop", "who h", "--stop", "ing"], &args[..]].concat());
    let mut stopped = 0;
    for sequence in array(&report["sequences"]) {
        let text = text(&sequence["text"]);
        assert!(!text.contains("who h") && !text.contains("ing"), "{text}");
        stopped += usize::from(sequence["stop_reason"] == "stop_text");
    }
    assert!(stopped > 0, "{report}");
}

#[test]
fn sampled_sequences_begin_with_the_one_that_is_drawn_alone() {
    let args = ["--seed", "5", "-n", "30", "The fox"];
    let alone = json(&args);
    let several = json(&[&["--num-return-sequences", "4"], &args[..]].concat());
    let sequences = array(&several["sequences"]);
    assert_eq!(sequences.len(), 4);
    assert_eq!(sequences[0]["ids"], alone["ids"]);
    assert_ne!(sequences[1]["ids"], alone["ids"]);
    let ids = sequences.iter().map(|s| array(&s["ids"]).len() as u64).sum::<u64>();
    assert_eq!(several["new_tokens"], ids);
    let printed = run(&[&["generate", "--num-return-sequences", "4", "-q"], &args[..]].concat());
    assert_eq!(printed.stderr, "");
    assert!(printed.ok().contains(text(&sequences[3]["text"])));
}

#[test]
fn contrastive_search_differs_from_greedy() {
    let args = ["-n", "40", "Once upon a time"];
    let contrastive = json(&[&["--penalty-alpha", "0.6", "--top-k", "4"], &args[..]].concat());
    assert_eq!(contrastive["strategy"], "contrastive");
    let greedy = json(&[&["--strategy", "greedy"], &args[..]].concat());
    assert_ne!(contrastive["ids"], greedy["ids"]);
    let one = json(&[&["--strategy", "contrastive", "--top-k", "1"], &args[..]].concat());
    assert_eq!(one["ids"], greedy["ids"]);
}

#[test]
fn prompt_lookup_changes_only_the_steps() {
    let prompt = "the king and the queen and the king and the queen and the king";
    for strategy in [&["--strategy", "greedy"][..], &["--temperature", "0.2", "--seed", "1"]] {
        let args = [strategy, &["-n", "60", prompt]].concat();
        let plain = json(&args);
        let lookup = json(&[&["--prompt-lookup", "10"], &args[..]].concat());
        assert_eq!(lookup["ids"], plain["ids"]);
        let steps = |report: &Value| report["decode_steps"].as_u64().unwrap();
        assert!(steps(&lookup) < steps(&plain), "{}", steps(&lookup));
    }
}

#[test]
fn explanations_show_every_filter() {
    let args = [
        "--explain=3",
        "--seed",
        "1",
        "-n",
        "4",
        "--repetition-penalty",
        "1.2",
        "--top-p",
        "0.9",
        "--typical-p",
        "0.9",
        "Once upon a time",
    ];
    let report = json(&args);
    let steps = array(&report["explanation"]);
    assert_eq!(steps.len(), 4);
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], i + 1);
        let stages: Vec<&str> = array(&step["stages"]).iter().map(|s| text(&s["stage"])).collect();
        let all = ["logits", "repetition_penalty", "temperature", "top_k", "top_p", "typical_p"];
        assert_eq!(stages, all);
        let mut kept = u64::MAX;
        for stage in array(&step["stages"]) {
            let left = stage["kept"].as_u64().unwrap();
            assert!(left <= kept && left > 0);
            kept = left;
            let candidates = array(&stage["candidates"]);
            assert_eq!(candidates.len(), 3.min(left as usize));
            let sum: f64 = candidates.iter().map(|c| c["probability"].as_f64().unwrap()).sum();
            assert!(sum > 0.0 && sum < 1.000_001);
        }
        assert_eq!(step["chosen"]["id"], report["ids"][i]);
    }
    let printed = run(&[&["generate"], &args[..]].concat());
    for part in ["step 4", "repetition_penalty", "typical_p", "chosen"] {
        assert!(printed.stderr.contains(part), "{part} in {}", printed.stderr);
    }
    assert_eq!(printed.ok(), format!("Once upon a time{}\n", text(&report["text"])));

    let beams = json(&["--explain", "--num-beams", "2", "-n", "3", "Once upon a time"]);
    let steps = array(&beams["explanation"]);
    let continuations: Vec<&Value> =
        steps.iter().map(|step| &step["continuations"]).filter(|c| !c.is_null()).collect();
    assert_eq!(continuations.len(), 3);
    assert_eq!(array(continuations[2]).len(), 4);
    assert!(steps.iter().any(|step| step["beam"] == 1));

    let contrastive = json(&["--explain", "--penalty-alpha", "0.6", "-n", "2", "Once upon a time"]);
    for (step, id) in array(&contrastive["explanation"]).iter().zip(array(&contrastive["ids"])) {
        let contrasts = array(&step["contrasts"]);
        assert_eq!(contrasts.len(), 4);
        let best = contrasts
            .iter()
            .max_by(|a, b| a["score"].as_f64().unwrap().total_cmp(&b["score"].as_f64().unwrap()));
        assert_eq!((&best.unwrap()["id"], &step["chosen"]["id"]), (id, id));
    }
}

#[test]
fn plans_tell_what_each_strategy_takes() {
    let plan = |args: &[&str]| run(&[&["plan", "--json"], args].concat()).json();
    let bytes = |plan: &Value, key: &str| plan[key].as_u64().unwrap();
    let sample = plan(&[]);
    for (args, branches) in [
        (&["--num-beams", "4"][..], 4),
        (&["--num-return-sequences", "6"], 6),
        (&["--penalty-alpha", "0.6", "--top-k", "5"], 5),
    ] {
        let more = plan(args);
        assert_eq!(more["branches"], branches);
        for key in ["kv_cache_bytes", "logits_bytes", "total_bytes"] {
            assert!(bytes(&more, key) > bytes(&sample, key), "{key} {args:?}");
        }
        assert!(bytes(&more, "branch_tables_bytes") > 0);
        let table = run(&[&["plan"], args].concat()).ok();
        assert!(table.contains("beside them") && table.contains("decoding ("), "{table}");
    }
    // Fewer tokens, fewer slots.
    let short = plan(&["--num-beams", "4", "-n", "10"]);
    assert_eq!(short["branch_slots"], 30);
    let greedy = plan(&["--strategy", "greedy"]);
    assert!(bytes(&greedy, "decoding_bytes") < bytes(&sample, "decoding_bytes"));
}

#[test]
fn nothing_to_write_is_an_empty_text() {
    for args in [&["--strategy", "greedy"][..], &["--num-beams", "2"], &["--penalty-alpha", "0.6"]]
    {
        let report = json(&[args, &["-n", "0", "The fox"]].concat());
        assert_eq!((&report["text"], &report["new_tokens"]), (&"".into(), &0.into()));
        assert_eq!(report["stop_reason"], "max_new_tokens");
    }
}
