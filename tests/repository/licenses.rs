//! `deny.toml` holds: licences, one version of each crate, and where crates come from. What cargo-deny
//! does with it, as far as that needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::{read, root};

/// The quoted words of a list in a section of `deny.toml`.
fn list(section: &str, key: &str) -> Vec<String> {
    let text = read("deny.toml");
    let body = text.split(&format!("\n[{section}]\n")).nth(1).expect("the section");
    let body = body.split("\n[").next().expect("its end");
    let start = body.find(&format!("{key} = [")).expect("the list");
    let words = body[start..].split("]\n").next().expect("its end").split('"');
    words.skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether one of the ways in which an expression of SPDX can be satisfied is allowed.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    /// The parts between this word, outside of parentheses.
    fn split<'e>(expression: &'e str, word: &str) -> Vec<&'e str> {
        let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
        for (i, c) in expression.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && i >= start && expression[i..].starts_with(word) => {
                    parts.push(&expression[start..i]);
                    start = i + word.len();
                }
                _ => {}
            }
        }
        parts.push(&expression[start..]);
        parts
    }
    let either = split(expression, " OR ");
    if either.len() > 1 {
        return either.iter().any(|part| satisfied(part, allowed));
    }
    let all = split(expression, " AND ");
    if all.len() > 1 {
        return all.iter().all(|part| satisfied(part, allowed));
    }
    let term = expression.trim();
    match term.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        Some(inner) => satisfied(inner, allowed),
        None => allowed(term),
    }
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(root());
    for target in
        ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"]
    {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{}", packages.len());
    let (allow, exceptions) = (list("licenses", "allow"), list("licenses", "exceptions"));
    for package in packages {
        let name = package["name"].as_str().unwrap();
        // The old way to write it.
        let license = package["license"].as_str().unwrap_or("none").replace(" / ", " OR ");
        let license = license.replace('/', " OR ");
        let allowed = |term: &str| {
            let excepted = exceptions.first().is_some_and(|crate_name| crate_name == name);
            allow.iter().any(|one| one == term)
                || excepted && exceptions[1..].iter().any(|one| one == term)
        };
        assert!(satisfied(&license, &allowed), "{name}: {license} is not in deny.toml");
    }
}

/// Names and versions of the packages in a lock file, whose sources are checked.
fn locked(path: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let registries = list("sources", "allow-registry");
    for package in read(path).split("[[package]]\n").skip(1) {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let (name, version) = (field("name").unwrap(), field("version").unwrap());
        if let Some(source) = field("source") {
            let known = registries.iter().any(|known| source == format!("registry+{known}"));
            assert!(known, "{path}: {name} comes from {source}");
            assert!(field("checksum").is_some(), "{path}: {name} has no checksum");
        }
        found.entry(name).or_default().insert(version.split('+').next().unwrap().to_owned());
    }
    found
}

#[test]
fn crates_are_there_once_and_from_the_registry() {
    for path in ["fuzz/Cargo.lock", "examples/bare-metal/Cargo.lock", "examples/wasm/Cargo.lock"] {
        assert!(!locked(path).is_empty());
    }
    let mut skipped: BTreeSet<String> = list("bans", "skip").into_iter().collect();
    for (name, versions) in locked("Cargo.lock") {
        let counted: Vec<_> = versions
            .iter()
            .filter(|version| !skipped.remove(&format!("{name}@{version}")))
            .collect();
        assert!(counted.len() <= 1, "{name} is there as {counted:?}: deny.toml names none of them");
    }
    assert!(skipped.is_empty(), "deny.toml skips what there is not: {skipped:?}");
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = |term: &str| term == "MIT" || term == "Zlib";
    for expression in ["MIT", "GPL-3.0 OR MIT", "(GPL-3.0 OR MIT) AND Zlib", "MIT AND Zlib OR GPL"]
    {
        assert!(satisfied(expression, &allowed), "{expression}");
    }
    for expression in ["GPL-3.0", "none", "MIT AND GPL-3.0", "(MIT OR Zlib) AND GPL", "MIT WITH X"]
    {
        assert!(!satisfied(expression, &allowed), "{expression}");
    }
}
