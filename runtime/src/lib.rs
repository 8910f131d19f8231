//! GPT-2 inference on small CPUs, without `std` and without allocation.
//!
//! A `.pgpt` file (made by `pocketgpt-quantize`) is proven once and then used where it lies: mapped
//! into memory, in flash, or inside the program. Memory for the rest is the caller's and its size
//! is known before. The same file and tokens give the same bits on every instruction set, with any
//! number of threads and however the tokens are split into batches.
//!
//! # A text
//!
#![cfg_attr(feature = "mmap", doc = "```no_run")]
#![cfg_attr(not(feature = "mmap"), doc = "```ignore")]
//! use std::io::Write;
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
//! use pocketgpt_runtime::format::{MappedFile, WeightFile};
//! use pocketgpt_runtime::generate::Generator;
//! use pocketgpt_runtime::kernels::Kernels;
//! use pocketgpt_runtime::memory::Line;
//! use pocketgpt_runtime::model::Gpt2;
//! use pocketgpt_runtime::parallel::Serial;
//! use pocketgpt_runtime::session::Session;
//! use pocketgpt_runtime::tokenizer::Utf8Stream;
//! use pocketgpt_runtime::workspace::{Plan, SessionOptions};
//!
//! // Proves header and directory; no weight is read yet.
//! let map = MappedFile::open(Path::new("gpt2.pgpt"))?;
//! let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
//! let config = *model.config();
//! let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
//!
//! // What is wanted: the names are those of Hugging Face's generation config.
//! let prompt = tokenizer.encode_to_vec("Once upon a time");
//! let sampling = SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
//! let options = DecodingOptions {
//!     strategy: Strategy::Sample(sampling),
//!     max_new_tokens: 50,
//!     seed: 7,
//!     ..DecodingOptions::new(&config)
//! };
//!
//! // All the memory that there will be.
//! let session_options = options.session_options(&SessionOptions::new(&config), prompt.len());
//! let mut memory = vec![Line::ZERO; Plan::new(&config, &session_options)?.lines()];
//! let mut session = Session::new(model, &session_options, &mut memory)?;
//! let mut memory = vec![Line::ZERO; Generator::lines(&config, &options, prompt.len())?];
//! let mut generator = Generator::new(&config, &options, prompt.len(), &mut memory)?;
//!
//! let mut text = Utf8Stream::new();
//! generator.run(&mut session, &Serial, &prompt, &mut |token: u32| {
//!     text.push(tokenizer.token_bytes(token).unwrap_or_default(), |piece| print!("{piece}"));
//!     std::io::stdout().flush().map_or(ControlFlow::Break(()), ControlFlow::Continue)
//! })?;
//! text.finish(|piece| println!("{piece}"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The layers, from the file up
//!
//! | layer | modules | what it gives |
//! |---|---|---|
//! | file | [`format`], [`config`], [`quant`] | [`format::WeightFile`]: proven at open, then views that cannot fail |
//! | text | [`tokenizer`] | byte-level BPE, used in place from the file; [`tokenizer::Utf8Stream`] for output |
//! | CPU | [`isa`], [`kernels`], [`math`] | [`kernels::Kernels`]: having one proves that this CPU can run it |
//! | threads | [`parallel`], `pool` | [`parallel::Serial`], `pool::ThreadPool`, or the caller's own [`parallel::Parallel`] |
//! | memory | [`memory`], [`workspace`] | [`workspace::Plan`]: the bytes a session takes, before there is one |
//! | model | [`model`], [`session`] | [`session::Session`]: tokens in, logits out; [`session::Tap`] looks inside |
//! | choice | [`decoding`], [`generate`] | [`generate::Generator`]: greedy, sampling, beam and contrastive search, and the loops around them |
//!
//! Each layer can be used without those below it in this table. What is behind [`session`], the
//! layers of the network and the cache of keys and values, is private: nothing there can be misused.
//!
//! # Without `std`
//!
//! Without features the crate takes slices and gives slices: the caller has the file's bytes (at a
//! multiple of 64 bytes), the memory and, where there is one, a thread pool. Which instructions the
//! CPU has is then taken from the build's target features, or vouched for with
//! [`kernels::Kernels::for_isa_unchecked`]. `examples/bare-metal` is a firmware that does this.
//!
//! # Features
//!
//! Features only add, and none changes a number.
//!
//! | feature | implies | adds |
//! |---|---|---|
//! | none | | everything it takes to run a model in the caller's memory |
//! | `alloc` | | owned buffers: the encoders of files and of tokenizer sections, `encode_to_vec` |
//! | `std` (default) | `alloc` | detection of the CPU's instructions at run time, `pool::ThreadPool` |
//! | `mmap` (default) | `std` | `format::MappedFile`: a file in the page cache, used in place; `huge_pages`: memory for a copy of it |
//! | `embedded-io` | | `embedded::TextWriter`: a text to a UART, as it is written |
//! | `embedded-hal` | | `embedded::Activity`, `embedded::Pause`: a pin that shows when the model works, rests between tokens |
//! | `bench` | `mmap` | `kernels::peak` and `roofline`: what the machine gives at most, to measure against |
//!
//! # Errors and panics
//!
//! Everything that a file, a text or an option can be wrong in is an error of [`error`],
//! [`tokenizer`] or [`decoding`]. Panics are for mistakes of the calling program and stand under
//! "Panics" where they are possible. A mapped file that another process cuts short while it is in
//! use ends the program with a signal, as with every map.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod branches;
pub mod config;
pub mod decoding;
#[cfg(any(feature = "embedded-hal", feature = "embedded-io"))]
pub mod embedded;
pub mod error;
pub mod format;
pub mod generate;
#[cfg(feature = "mmap")]
pub mod huge_pages;
pub mod isa;
pub mod kernels;
mod kv_cache;
pub mod math;
pub mod memory;
pub mod model;
mod nn;
mod overflow;
pub mod parallel;
#[cfg(feature = "std")]
pub mod pool;
pub mod quant;
#[cfg(feature = "bench")]
pub mod roofline;
pub mod saved;
pub mod session;
mod sync;
pub mod tokenizer;
pub mod workspace;

pub use kv_cache::{KvType, UnknownKvType};
pub use overflow::Overflow;
