//! The core is small enough to be read: what it depends on is listed here, and grows on purpose.

use std::process::Command;

use crate::root;

/// Packages that `cargo tree` names for the core with these features.
fn tree(features: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "pocketgpt-runtime", "-e", "normal,no-proc-macro"])
        .args(["--prefix", "none", "--format", "{p}", "--target", "x86_64-unknown-linux-gnu"])
        .args(features)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut names: Vec<String> =
        text.lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    names.sort();
    names.dedup();
    names
}

const CORE: [&str; 8] = [
    "bytemuck",
    "cfg-if",
    "crc32fast",
    "half",
    "pocketgpt-runtime",
    "rand_core",
    "rand_xoshiro",
    "zerocopy",
];

#[test]
fn the_core_depends_on_little() {
    assert_eq!(tree(&["--no-default-features"]), CORE);
}

#[test]
fn with_maps_and_threads_it_depends_on_little_more() {
    let mut expected = CORE.to_vec();
    expected.extend(["libc", "memmap2"]);
    expected.sort();
    assert_eq!(tree(&[]), expected);
}
