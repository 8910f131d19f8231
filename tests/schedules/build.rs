//! The files that are included from the runtime have unit tests for real threads: not here.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
