//! `docs/format.md` numbers the rules; `docs/security.md` names the test of each.

use std::collections::{BTreeMap, BTreeSet};

use crate::{quoted, read, rows};

/// The rows of each rule in a section of a document: its number, and two cells more.
fn rules(text: &str, section: &str) -> BTreeMap<u32, Vec<String>> {
    let text = text.split(&format!("\n## {section}")).nth(1).expect("the section");
    let mut rules = BTreeMap::new();
    for row in rows(text.split("\n## ").next().expect("its end"), 3) {
        if let Ok(number) = row[0].parse::<u32>() {
            assert!(rules.insert(number, row).is_none(), "rule {number} stands there twice");
        }
    }
    rules
}

/// Names of an enum's variants, as rustfmt writes them.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let body = source.split(&format!("pub enum {name} {{\n")).nth(1).expect("the enum");
    let body = body.split("\n}").next().expect("its end");
    body.lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned())
        .collect()
}

/// The body of a test, if there is one of this name.
fn test_body<'t>(sources: &'t [String], name: &str) -> Option<&'t str> {
    sources.iter().find_map(|source| {
        let (before, body) = source.split_once(&format!("fn {name}() {{"))?;
        let is_test = before.trim_end().lines().next_back()?.trim() == "#[test]";
        is_test.then(|| body.split("\n}").next().unwrap_or(body))
    })
}

#[test]
fn every_rule_has_its_error_and_its_test() {
    let (format, security) = (read("docs/format.md"), read("docs/security.md"));
    let (rules_of_format, tests) = (rules(&format, "9."), rules(&security, "Rules"));
    assert!(rules_of_format.len() >= 45, "{}", rules_of_format.len());
    let errors = read("runtime/src/error.rs");
    let known: BTreeSet<String> = ["FormatError", "ConfigError"]
        .iter()
        .flat_map(|name| variants(&errors, name))
        .chain(variants(&read("runtime/src/tokenizer/error.rs"), "TokenizerError"))
        .collect();
    let sources = ["rejects_header", "rejects_config", "rejects_directory", "rejects_weights"]
        .map(|file| read(format!("runtime/tests/format/{file}.rs")));
    let mut used = BTreeSet::new();
    for (number, rule) in &rules_of_format {
        let row = tests.get(number).unwrap_or_else(|| panic!("security.md lacks rule {number}"));
        assert_eq!(quoted(&rule[2]), quoted(&row[1]), "rule {number}: the errors differ");
        // `Config(OutOfRange)` is one variant in another.
        let names = quoted(&row[1])[0].split(['(', ')']).filter(|name| !name.is_empty());
        let names: Vec<_> = names.collect();
        for name in &names {
            assert!(known.contains(*name), "rule {number}: no error {name}");
            used.insert((*name).to_owned());
        }
        let listed = quoted(&row[2]);
        assert!(!listed.is_empty(), "rule {number} has no test");
        let name = names.last().expect("a name");
        let mut bodies = listed.iter().map(|test| {
            test_body(&sources, test).unwrap_or_else(|| panic!("rule {number}: no test {test}"))
        });
        assert!(bodies.any(|body| body.contains(*name)), "rule {number}: no test expects {name}");
    }
    assert_eq!(tests.len(), rules_of_format.len());
    let unused: Vec<_> = variants(&errors, "FormatError").difference(&used).cloned().collect();
    assert!(unused.is_empty(), "errors without a rule: {unused:?}");
}

/// The tokenizer's own rules are one of the format's, with an error and a test for each part.
#[test]
fn every_error_of_the_tokenizer_has_a_test() {
    let tests = read("runtime/src/tokenizer/tests.rs");
    for name in variants(&read("runtime/src/tokenizer/error.rs"), "TokenizerError") {
        assert!(tests.contains(&format!("TokenizerError::{name}")), "no test expects {name}");
    }
}
