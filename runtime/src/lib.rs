//! GPT-2 inference on small CPUs, without `std` and without allocation.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod config;
pub mod error;
pub mod format;
pub mod generate;
pub mod isa;
pub mod kernels;
mod kv_cache;
pub mod math;
pub mod memory;
pub mod model;
mod nn;
pub mod parallel;
#[cfg(feature = "std")]
pub mod pool;
pub mod quant;
pub mod sampling;
pub mod session;
pub mod tokenizer;
pub mod workspace;

pub use kv_cache::{KvType, UnknownKvType};
