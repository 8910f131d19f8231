//! Names the linker script of the board, and asks for the model.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let board = |name: &str| std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
    let scripts: &[&str] = match (board("RASPI3B"), board("VIRT"), board("MPS2_AN500")) {
        (true, false, false) => &["raspi3b.ld", "aarch64.ld"],
        (false, true, false) => &["virt.ld", "aarch64.ld"],
        // link.x is of cortex-m-rt and includes memory.x.
        (false, false, true) => &["link.x"],
        _ => panic!("choose a board: --features raspi3b, virt or mps2-an500"),
    };
    println!("cargo:rustc-link-search={folder}/link");
    for script in scripts {
        println!("cargo:rustc-link-arg=-T{script}");
    }
    println!("cargo:rerun-if-changed=link");
    println!("cargo:rerun-if-env-changed=POCKETGPT_MODEL");
    let model = std::env::var("POCKETGPT_MODEL").unwrap_or_default();
    assert!(
        model.ends_with(".pgpt"),
        "set POCKETGPT_MODEL to the path of a .pgpt file; `make` does"
    );
    println!("cargo:rerun-if-changed={model}");
}
