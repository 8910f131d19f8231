//! Input: decoding options, a text, logits and weights of the head; all strategies.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: pocketgpt_fuzz::sampling::Input| pocketgpt_fuzz::sampling::run(&input));
