//! From checkpoint to text.

mod bit_identity;
mod golden_forward;
mod greedy;
mod loss;
mod tokenizer;
mod variants;
