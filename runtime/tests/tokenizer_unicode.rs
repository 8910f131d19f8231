//! The table of character classes against those of the reference's regex engine.
//!
//! With `POCKETGPT_BLESS=1` the table is written anew. That changes the ids of texts, so it is not
//! to be done because a dependency was updated.

use regex_syntax::hir::{Class, HirKind};
use std::fmt::Write as _;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tokenizer/unicode_table.rs");

/// Marks the characters of `class` with `bits`.
fn mark(bits: &mut [u32], class: &str, bit: u32) {
    let hir = regex_syntax::parse(class).unwrap();
    let HirKind::Class(Class::Unicode(class)) = hir.kind() else {
        panic!("{class} is no class");
    };
    for range in class.iter() {
        for c in range.start()..=range.end() {
            bits[c as usize] |= bit;
        }
    }
}

fn table() -> String {
    let mut bits = vec![0; 0x11_0000];
    mark(&mut bits, r"\p{L}", 1);
    mark(&mut bits, r"\p{N}", 2);
    mark(&mut bits, r"\s", 3);
    mark(&mut bits, r"\w", 4);
    let mut ranges = Vec::new();
    for (c, &bit) in bits.iter().enumerate() {
        if c == 0 || bits[c - 1] != bit {
            ranges.push(format!("{:#x}", (c as u32) << 3 | bit));
        }
    }
    let mut text = String::from(
        "//! Made by `tests/tokenizer_unicode.rs` from Unicode 16.0; not to be edited.\n\n\
         /// First character of a range `<< 3`, with 1 for `\\p{L}`, 2 for `\\p{N}`, 3 for `\\s`, and\n\
         /// 4 added for `\\w`.\n\
         #[rustfmt::skip]\n",
    );
    writeln!(text, "pub(super) const RANGES: [u32; {}] = [", ranges.len()).unwrap();
    for line in ranges.chunks(10) {
        writeln!(text, "    {},", line.join(", ")).unwrap();
    }
    text.push_str("];\n");
    text
}

#[test]
fn table_has_the_classes_of_the_reference() {
    let wanted = table();
    if std::env::var_os("POCKETGPT_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(TABLE, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(TABLE).unwrap();
    assert!(
        found == wanted,
        "unicode_table.rs differs from the regex engine's classes: which Unicode has it now?"
    );
}
