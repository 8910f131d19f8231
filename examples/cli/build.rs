//! Converts the bundled model, so that the program needs no file to run. Runs on the host, also
//! when the program is built for another machine: the file is the same everywhere.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "embedded-model")]
    convert_bundled_model();
}

#[cfg(feature = "embedded-model")]
fn convert_bundled_model() {
    use std::env::var_os;
    use std::path::PathBuf;

    use pocketgpt_quantize::{ConvertOptions, Encoding, convert};

    let folder = |name| PathBuf::from(var_os(name).expect("cargo sets it for build scripts"));
    let source = folder("CARGO_MANIFEST_DIR").join("../model");
    println!("cargo:rerun-if-changed={}", source.display());
    let output = folder("OUT_DIR").join("model.pgpt");
    let options = ConvertOptions { to: Encoding::Q8, ..ConvertOptions::default() };
    if let Err(error) = convert(&source, &output, &options, &mut ()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
