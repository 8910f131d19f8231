//! From checkpoint to text.

mod bit_identity;
mod branches;
mod decoding;
mod embedded;
mod golden_forward;
mod golden_hashes;
mod limits;
mod lookup;
mod loss;
mod overflow;
mod saved;
mod tokenizer;
mod variants;
mod warpers;
