//! Each fuzz target has a corpus, which stays small enough to be in the repository.

use std::fs;

use super::{read, root};

/// Of all targets together.
const MAX_BYTES: u64 = 300_000;

#[test]
fn every_target_has_a_small_corpus() {
    let manifest = read("fuzz/Cargo.toml");
    let targets = manifest.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
    let targets: Vec<_> = targets.filter_map(|rest| rest.strip_suffix(".rs\"")).collect();
    assert!(targets.len() > 4, "{targets:?}");
    let mut total = 0;
    for target in targets {
        let folder = root().join("fuzz/inputs").join(target);
        let inputs = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let bytes: u64 = inputs.map(|input| input.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes > 0, "{target} has no corpus");
        total += bytes;
    }
    assert!(total <= MAX_BYTES, "{total} bytes");
}
