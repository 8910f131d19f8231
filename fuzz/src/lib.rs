//! What the fuzz targets and the program that makes their seeds share.
//!
//! A target takes bytes and lets the project work on them. It fails on a panic, on what
//! AddressSanitizer finds, on more memory or time than libFuzzer is told to allow, and where one of
//! its own assertions does not hold: those say what is promised beyond "no crash".

pub mod checkpoint;
pub mod file;
pub mod numbers;
pub mod run;
pub mod sampling;
pub mod saved;
pub mod tokenizer;
