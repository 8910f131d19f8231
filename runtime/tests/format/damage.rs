//! Files that are cut, flipped or filled with anything: an error or numbers, never a panic.

use std::collections::HashSet;

use pocketgpt_runtime::format::Encoding;
use proptest::prelude::*;

use crate::tiny::{self, CONFIG, DIRECTORY, FileBytes, Numbers, Parts, seal, seal_header, u64_at};

/// First byte behind the directory.
const DIRECTORY_END: usize = DIRECTORY + 64 * tiny::TENSORS;

fn put_u64(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

#[test]
fn no_cut_file_opens() {
    let file = tiny::file();
    for len in 0..file.bytes().len() {
        let cut = pocketgpt_runtime::format::WeightFile::new(&file.bytes()[..len]);
        assert!(cut.is_err(), "cut to {len} bytes");
    }
}

/// The same with a header that says what is left, as a hostile writer would make it.
#[test]
fn no_cut_file_opens_with_a_fitting_header() {
    let mut file = tiny::file();
    let data = u64_at(file.bytes(), 80) as usize;
    for len in 128..file.bytes().len() {
        put_u64(file.bytes_mut(), 8, len);
        put_u64(file.bytes_mut(), 88, len.saturating_sub(data));
        seal_header(file.bytes_mut());
        let cut = pocketgpt_runtime::format::WeightFile::new(&file.bytes()[..len]);
        assert!(cut.is_err(), "cut to {len} bytes");
    }
}

#[test]
fn no_byte_of_header_config_or_directory_can_change() {
    let mut file = tiny::file();
    for at in 0..DIRECTORY_END {
        for flip in 1..=255 {
            file.bytes_mut()[at] ^= flip;
            assert!(file.open().is_err(), "byte {at} flipped by {flip:#x}");
            file.bytes_mut()[at] ^= flip;
        }
    }
    assert!(file.open().is_ok());
}

/// What the forward pass depends on, the weights apart.
fn shape(file: &FileBytes) -> Vec<u8> {
    let mut shape = file.bytes()[CONFIG..DIRECTORY_END].to_vec();
    for entry in shape[DIRECTORY - CONFIG..].chunks_exact_mut(64) {
        entry[32..36].fill(0);
    }
    shape
}

/// The same flips by someone who knows the format: CRCs fit again. Most break another rule; what
/// opens is a model of its own and has to run.
#[test]
fn what_opens_after_a_sealed_flip_runs() {
    let whole = tiny::file();
    let mut seen = HashSet::from([shape(&whole)]);
    let mut file = whole.clone();
    for at in 0..DIRECTORY_END {
        for flip in 1..=255 {
            file.bytes_mut()[at] ^= flip;
            match at {
                ..CONFIG => seal_header(file.bytes_mut()),
                CONFIG..DIRECTORY => seal(file.bytes_mut(), 0),
                _ => seal(file.bytes_mut(), 1),
            }
            if let Ok(opened) = file.open()
                && seen.insert(shape(&file))
            {
                tiny::two_steps(opened);
            }
            file.bytes_mut()[..DIRECTORY_END].copy_from_slice(&whole.bytes()[..DIRECTORY_END]);
        }
    }
    // One head instead of two, activations, flags, token ids, epsilons.
    assert!(seen.len() > 500, "{} models", seen.len());
}

/// Opening does not look at weights, so anything may be there: NaN scales, −128, rows of ones.
#[test]
fn any_weights_run() {
    for encoding in [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let mut file = Parts::default().build(|_, _| encoding);
        let data = u64_at(file.bytes(), 80) as usize;
        // Miri is some thousand times slower.
        let bytes = if cfg!(miri) { &[0xff][..] } else { &[0x00, 0x7f, 0x80, 0xff] };
        for &byte in bytes {
            file.bytes_mut()[data..].fill(byte);
            let _ = file.open().unwrap().verify();
            tiny::two_steps(file.open().unwrap());
        }
        for seed in 0..if cfg!(miri) { 0 } else { 8 } {
            let mut numbers = Numbers(seed);
            file.bytes_mut()[data..].fill_with(|| numbers.next() as u8);
            let _ = file.open().unwrap().verify();
            tiny::two_steps(file.open().unwrap());
        }
    }
}

/// Values that arithmetic stumbles over.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        Just(u32::MAX),
        Just(1 << 31),
        0u32..300,
        (0u32..32).prop_map(|bit| 1 << bit),
        any::<u32>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Several words of header, config, directory and the tokenizer's header at once.
    #[test]
    fn sealed_edits_do_no_harm(
        edits in prop::collection::vec((0..(DIRECTORY_END + 64) / 4, word()), 1..5),
    ) {
        let mut config = tiny::config();
        config.vocab_size = 261;
        let parts = Parts { config, tokenizer: tiny::tokenizer(), ..Parts::default() };
        let mut file = parts.build(|role, _| tiny::encoding(role));
        let mut put = |header: bool| {
            for &(at, word) in edits.iter().filter(|(at, _)| (4 * at < CONFIG) == header) {
                file.bytes_mut()[4 * at..][..4].copy_from_slice(&word.to_le_bytes());
            }
            if header {
                seal_header(file.bytes_mut());
            } else {
                (0..3).for_each(|section| seal(file.bytes_mut(), section));
            }
        };
        put(false);
        put(true);
        if let Ok(opened) = file.open() {
            let _ = opened.verify();
            tiny::two_steps(opened);
            if let Ok(Some(tokenizer)) = opened.tokenizer() {
                let ids = tokenizer.encode_to_vec("hello <|endoftext|> world");
                prop_assert!(ids.iter().all(|&id| id < opened.config().vocab_size));
            }
        }
    }
}
