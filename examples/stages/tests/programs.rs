//! The programs run, say what `docs/how-it-works.md` says of them, and make its pictures.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs a program in a folder of its own; gives its output and the picture of its name, if it
/// makes one.
fn run(program: &str, name: &str) -> (String, Option<String>) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let picture = fs::read_to_string(folder.path().join(format!("{name}.svg"))).ok();
    (String::from_utf8(output.stdout).unwrap(), picture)
}

/// A text cut into what is no number, and the numbers between.
fn parts(text: &str) -> (Vec<&str>, Vec<f64>) {
    let digit = |c: char| c.is_ascii_digit();
    let others = text.split(digit).filter(|part| !part.is_empty()).collect();
    let numbers = text.split(|c| !digit(c)).filter(|part| !part.is_empty());
    (others, numbers.map(|number| number.parse().unwrap()).collect())
}

/// The picture of the documentation is what the program draws. A shade or a bar may be off by a
/// little: exp is that of the system.
#[track_caller]
fn is_in_the_documentation(picture: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures").join(name);
    let committed = fs::read_to_string(&path).unwrap();
    let (found, expected) = (parts(picture), parts(&committed));
    let near = found.1.iter().zip(&expected.1).all(|(a, b)| (a - b).abs() <= 2.0);
    assert!(
        found.0 == expected.0 && found.1.len() == expected.1.len() && near,
        "docs/pictures/{name} is not what the program draws: run it in docs/pictures and look at it"
    );
}

fn check(program: &str, name: &str, says: &[&str]) {
    let (output, picture) = run(program, name);
    for part in says {
        assert!(output.contains(part), "{part:?} in {output}");
    }
    is_in_the_documentation(&picture.expect("a picture"), &format!("{name}.svg"));
}

#[test]
fn tokens() {
    let says = ["45 bytes become 14 tokens", "·little", "and back: The little tailor laughed"];
    check(env!("CARGO_BIN_EXE_tokens"), "tokens", &says);
}

#[test]
fn embeddings() {
    let says = ["256 numbers for each word", "    king  1.00  0.70"];
    check(env!("CARGO_BIN_EXE_embeddings"), "embeddings", &says);
}

#[test]
fn attention() {
    // The second time it looks at what came after it the first time.
    let says = ["layer 5, head 0", "     ·tail -> or         0.8"];
    check(env!("CARGO_BIN_EXE_attention"), "attention", &says);
}

#[test]
fn layers() {
    let says = ["after layer 0: Once ·upon", "after layer 6: ·upon ·a ·time ·there ·was ·a ·king"];
    check(env!("CARGO_BIN_EXE_layers"), "layers", &says);
}

#[test]
fn decoding() {
    let says = ["at temperature 0.5:\n  0.382 ·king", "seed 2: Once upon a time there was a"];
    check(env!("CARGO_BIN_EXE_decoding"), "decoding", &says);
}

#[test]
fn the_library_writes_a_text() {
    let (output, _) = run(env!("CARGO_BIN_EXE_library"), "none");
    assert!(output.starts_with("Once upon a time") && output.split_whitespace().count() > 20);
}

#[test]
fn a_model_that_is_not_there_is_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_tokens")).arg("no.pgpt").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
