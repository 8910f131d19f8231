//! The runtime for C callers: `libpocketgpt.a`, `libpocketgpt.so` and `include/pocketgpt.h`.
//!
//! The header is made from these sources (`tests/header.rs`), so their comments speak to C. Each
//! module is a handle; `boundary` is what every function goes through: pointers are checked,
//! errors become codes with a message, and a panic stops there.
//!
//! # Safety
//!
//! What a C caller promises is the same for every function and stands once, at the top of the
//! header (`cbindgen.toml`): pointers are NULL or point to what they say, memory of handles is not
//! moved or freed while they are used, a handle is used by one thread at a time.
#![cfg_attr(not(feature = "std"), no_std)]
#![allow(non_camel_case_types, reason = "the names are those of the header")]
#![allow(clippy::missing_safety_doc, reason = "the header's preamble is the contract of all")]

mod boundary;
mod callbacks;
mod error;
#[cfg(feature = "std")]
mod file;
mod generator;
mod memory;
mod model;
mod options;
mod sampler;
mod saved;
mod session;
mod threads;
mod tokenizer;
mod version;

#[cfg(not(feature = "std"))]
mod panic;
