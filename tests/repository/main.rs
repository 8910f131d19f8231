//! What the documents say about the source is so: each rule of the format has its error and its
//! test, `unsafe` is where it is listed, the core depends on nothing but what is named, and licences are
//! those of `deny.toml`.

mod dependencies;
mod fuzz_inputs;
mod licenses;
mod rules;
mod unsafe_code;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().into()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Cells of the rows of all tables in a document that have this many.
fn rows(text: &str, cells: usize) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
        .filter(|row| row.len() == cells)
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}
