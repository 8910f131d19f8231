//! Turns a GPT-2 checkpoint (Hugging Face safetensors) into one `.pgpt` file.
//!
//! ```no_run
//! use pocketgpt_quantize::{ConvertOptions, Encoding, convert};
//!
//! let options = ConvertOptions { to: Encoding::Q4, ..ConvertOptions::default() };
//! let report = convert("gpt2".as_ref(), "gpt2.pgpt".as_ref(), &options, &mut ())?;
//! println!("{report}");
//! # Ok::<(), pocketgpt_quantize::ConvertError>(())
//! ```
//!
//! From the outside in:
//!
//! | module | what it does |
//! |---|---|
//! | [`convert()`] | reads, encodes and writes tensor by tensor |
//! | [`source`], [`hf_config`], [`gpt2_names`], [`tokenizer`], [`numbers`] | the checkpoint |
//! | `survey`, `calibrate`, `calibrated`, `allocate` | weights fitted to a text, sizes to order |
//! | [`compare()`] | what a file lost, layer by layer |
//! | [`group`], [`int8`], [`low_bits`], [`pack`] | sixteen rows of f32 to a record |
//! | [`writer`], [`verify`], [`report`] | the file |
//! | [`synth`], [`synth_tokenizer`] | checkpoints of random numbers |
//! | [`inspect()`] | what a file or checkpoint holds |
//!
//! What a checkpoint may be stands in [`hf_config`] and [`gpt2_names`]: what would change the
//! model's text and is not supported is an error that names it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod allocate;
mod calibrate;
mod calibrated;
mod compare;
mod convert;
mod error;
pub mod gpt2_names;
pub mod group;
pub mod hf_config;
mod inspect;
pub mod int8;
mod limits;
pub mod low_bits;
pub mod numbers;
pub mod pack;
mod progress;
pub mod report;
pub mod source;
mod survey;
pub mod synth;
pub mod synth_tokenizer;
mod threads;
pub mod tokenizer;
pub mod verify;
pub mod writer;

pub use allocate::Target;
pub use compare::{Comparison, MatrixComparison, compare};
pub use convert::{
    BUILT_IN_TEXT, CalibrationText, ConvertOptions, Method, TOOL, TokenizerChoice, convert,
};
pub use error::ConvertError;
pub use inspect::{CheckpointInspection, FileInspection, Inspection, inspect};
pub use pocketgpt_runtime::format::Encoding;
pub use progress::Progress;
pub use report::Report;
