//! The layers of GPT-2, each over the rows of a batch.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod linear;
pub(crate) mod parting;
