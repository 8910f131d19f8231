//! Input: a text and a tokenizer section.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| pocketgpt_fuzz::tokenizer::run(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    pocketgpt_fuzz::tokenizer::mutate(data, size, max_size, seed, fuzzer_mutate)
});
