//! `docs/unsafe.md` lists every file with `unsafe`, how often, and why: it grows on purpose only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::{quoted, read, root, rows};

/// How often the keyword stands in a file's code.
fn count(text: &str) -> usize {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.flat_map(|line| line.split(|c| !is_word(c))).filter(|word| *word == "unsafe").count()
}

fn scan(folder: &Path, found: &mut BTreeMap<String, usize>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        if path.is_dir() {
            let own = name.rsplit('/').next().unwrap_or_default();
            if !own.starts_with("target") && !own.starts_with('.') {
                scan(&path, found);
            }
        } else if name.ends_with(".rs") && name != "tests/repository/unsafe_code.rs" {
            let n = count(&fs::read_to_string(&path).unwrap());
            if n > 0 {
                found.insert(name, n);
            }
        }
    }
}

#[test]
fn unsafe_code_is_where_the_list_says() {
    let mut found = BTreeMap::new();
    scan(&root(), &mut found);
    let list = read("docs/unsafe.md");
    let mut listed = BTreeMap::new();
    for row in rows(&list, 3) {
        let (Some(file), Ok(n)) = (quoted(&row[0]).first().copied(), row[1].parse()) else {
            continue;
        };
        assert!(row[2].len() > 10, "{file}: no reason");
        assert!(listed.insert(file.to_owned(), n).is_none(), "{file} is listed twice");
    }
    for (file, n) in &found {
        let told = listed.remove(file).unwrap_or(0);
        assert_eq!(*n, told, "{file} has {n} times `unsafe`, docs/unsafe.md says {told}");
    }
    assert!(listed.is_empty(), "no unsafe code in {:?}", listed.keys());
}

#[test]
fn only_the_rooms_for_it_may_have_any() {
    let core = read("runtime/src/lib.rs");
    assert!(core.contains("#![deny(unsafe_code)]"));
    for root in ["quantize/src/lib.rs", "quantize/src/main.rs", "examples/cli/src/main.rs"] {
        assert!(read(root).contains("#![forbid(unsafe_code)]"), "{root}");
    }
}

#[test]
fn comments_and_longer_words_do_not_count() {
    assert_eq!(count("// unsafe\nlet unsafe_code = 1; /// unsafe\n"), 0);
    assert_eq!(count("unsafe fn a() { unsafe { b() } } // unsafe"), 2);
}
