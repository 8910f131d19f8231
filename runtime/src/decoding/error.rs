//! What can be wrong with options, and with logits.

use core::fmt;

/// Choosing a token is impossible.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum DecodingError {
    /// An option is outside its range.
    Option {
        /// Its name.
        name: &'static str,
        /// What was asked for.
        value: f32,
        /// What is possible, in words.
        range: &'static str,
    },
    /// Two options that exclude each other.
    Conflict {
        /// The option that has no meaning here.
        name: &'static str,
        /// Why not, in words.
        reason: &'static str,
    },
    /// The memory is too small.
    Memory {
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// A logit is infinite or not a number: the weights are damaged or overflow.
    NotFinite {
        /// The first such token.
        token: u32,
    },
    /// The options exclude every token.
    NothingLeft,
}

impl fmt::Display for DecodingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Option { name, value, range } => {
                write!(f, "{name} is {value}, it must be {range}")
            }
            Self::Conflict { name, reason } => write!(f, "{name} {reason}"),
            Self::Memory { needed, given } => {
                write!(f, "the memory for decoding has {given} bytes, {needed} are needed")
            }
            Self::NotFinite { token } => write!(
                f,
                "the logit of token {token} is not a finite number: the weights are damaged or overflow"
            ),
            Self::NothingLeft => write!(
                f,
                "no token may follow: no_repeat_ngram_size, sequence_bias and min_new_tokens exclude all of them"
            ),
        }
    }
}

impl core::error::Error for DecodingError {}
