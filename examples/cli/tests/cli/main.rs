//! The program as its users meet it: arguments in, streams and exit codes out.
#![cfg(feature = "embedded-model")]

mod bench;
mod decoding;
mod errors;
mod generate;
mod inside;
mod interactive;
mod memory;
mod overflow;
mod reports;
mod run;
mod saved;
