//! Opening reads header and directory, and no page of weights.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::Write;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::encode::FileLayout;
use pocketgpt_runtime::format::{Encoding, MappedFile, WeightFile};

use crate::tiny;

/// Resident KiB of the map of the file with this name.
fn resident(name: &str) -> u64 {
    let maps = fs::read_to_string("/proc/self/smaps").expect("Linux tells");
    let map = &maps[maps.find(name).expect("the file is mapped")..];
    let rss = map.lines().find_map(|line| line.strip_prefix("Rss:")).expect("a size");
    rss.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// 300 MB of weights that were never written: a hole, so the disk has nothing to give either.
#[test]
fn touches_no_page_of_weights() {
    let config = Gpt2Config {
        vocab_size: 65_536,
        n_embd: 1024,
        n_head: 16,
        n_inner: 4096,
        ..tiny::config()
    };
    let layout = FileLayout::new(&config, 0, 2, |_, _| Encoding::F32).unwrap();
    assert!(layout.file_len() > 300 << 20);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&layout.encode_prefix(&[], "{}")).unwrap();
    file.as_file().set_len(layout.file_len()).unwrap();

    let map = MappedFile::open(file.path()).unwrap();
    let opened = WeightFile::new(map.bytes()).unwrap();
    assert_eq!(opened.tensors().len(), 17);
    let name = file.path().file_name().unwrap().to_str().unwrap();
    let before = resident(name);
    // The prefix, and what the kernel maps around a page on its own.
    assert!(before <= 256, "{before} KiB");
    // That the figure would have told: one page in each MiB.
    let sum: u64 = map.bytes().iter().skip(1 << 20).step_by(1 << 20).map(|&b| u64::from(b)).sum();
    assert_eq!(sum, 0);
    assert!(resident(name) >= before + 4 * 300, "{} KiB", resident(name));
}
