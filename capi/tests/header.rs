//! `include/pocketgpt.h` is what the sources say. With `POCKETGPT_WRITE_HEADER=1` it is written:
//!
//!     POCKETGPT_WRITE_HEADER=1 cargo test -p pocketgpt-capi --test header

use std::path::Path;

/// In the order in which a caller needs them.
const SOURCES: [&str; 13] = [
    "version.rs",
    "error.rs",
    "file.rs",
    "model.rs",
    "tokenizer.rs",
    "options.rs",
    "threads.rs",
    "session.rs",
    "saved.rs",
    "callbacks.rs",
    "generator.rs",
    "sampler.rs",
    "panic.rs",
];

#[test]
fn header_is_what_the_sources_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(folder.join("src").join(source));
    }
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();

    let path = folder.join("include/pocketgpt.h");
    if std::env::var_os("POCKETGPT_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "{} is stale; make it anew:\n\
         POCKETGPT_WRITE_HEADER=1 cargo test -p pocketgpt-capi --test header",
        path.display()
    );
}
