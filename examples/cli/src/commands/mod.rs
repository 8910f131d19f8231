//! One module per command, each with a `run` that does it.

pub mod attention;
pub mod bench;
pub mod completions;
pub mod embed;
mod embed_plot;
pub mod generate;
pub mod info;
pub mod interactive;
pub mod logits;
pub mod perplexity;
pub mod plan;
pub mod tokenize;
pub mod verify;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of its work is done.
    Done,
    /// The user stopped it; what was done so far has been printed.
    Interrupted,
}
