//! Input: a saved session. Whatever is taken up must run, and be saved as the same bytes.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| pocketgpt_fuzz::saved::take_up(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    pocketgpt_fuzz::saved::mutate(data, size, max_size, seed, fuzzer_mutate)
});
