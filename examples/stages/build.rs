//! Converts the bundled model, in f16: nothing is lost, so the pictures show the model as it is.

use std::path::PathBuf;

use pocketgpt_quantize::{ConvertOptions, Encoding, convert};

fn main() {
    let folder = |name| PathBuf::from(std::env::var_os(name).expect("cargo sets it"));
    let source = folder("CARGO_MANIFEST_DIR").join("../model");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", source.display());
    let options = ConvertOptions { to: Encoding::F16, ..ConvertOptions::default() };
    convert(&source, &folder("OUT_DIR").join("model.pgpt"), &options, &mut ())
        .unwrap_or_else(|error| panic!("{error}"));
}
