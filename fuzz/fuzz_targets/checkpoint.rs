//! Input: `config.json`, `tokenizer.json` and `model.safetensors`, converted and run.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|data: &[u8]| pocketgpt_fuzz::checkpoint::run(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    pocketgpt_fuzz::checkpoint::mutate(data, size, max_size, seed, fuzzer_mutate)
});
