//! Text to tokens, and back.

use core::ffi::{c_char, c_void};

use pocketgpt_runtime::tokenizer::{CapacityError, SpecialTokens};

use crate::boundary::{Out, array_mut, guard, shared, text};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};
use crate::model::pgpt_model;

/// What is done with special tokens such as `<|endoftext|>` that are written in a text.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "callers write the codes")]
#[repr(u32)]
pub enum pgpt_special {
    /// They become their ids.
    PGPT_SPECIAL_PARSE = 0,
    /// They are text as any other: nothing that a stranger writes can end the document.
    PGPT_SPECIAL_PLAIN = 1,
}

/// Bytes of memory that pgpt_tokenize takes for this text: a few kilobytes for prose.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_tokenize_size(
    model: *const pgpt_model,
    text: *const c_char,
    length: usize,
    size: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut size = Out::new(size, "size")?;
            let tokenizer = shared(model, "model")?.tokenizer()?;
            let text = self::text(text, length, "text")?;
            size.write(bytes_for(lines_of::<u32>(tokenizer.scratch_len(text))));
            Ok(())
        })
    }
}

/// Turns a text of `length` bytes into tokens and tells their number in `count`. The memory is
/// used during the call only. `special` is one of pgpt_special. If there is no room for all
/// (`capacity`, in tokens), the error tells in `needed` how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_tokenize(
    model: *const pgpt_model,
    text: *const c_char,
    length: usize,
    special: u32,
    memory: *mut c_void,
    memory_size: usize,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let count = Out::new(count, "count")?;
            let tokenizer = shared(model, "model")?.tokenizer()?;
            let text = self::text(text, length, "text")?;
            let special = match special {
                0 => SpecialTokens::Parse,
                1 => SpecialTokens::Plain,
                found => return Err(Failure::Code { name: "special", found }),
            };
            let tokens = array_mut(tokens, capacity, "tokens")?;
            let scratch = tokenizer.scratch_len(text);
            let scratch =
                Memory::new(memory, memory_size, lines_of::<u32>(scratch))?.numbers(scratch);
            let mut needed = 0;
            tokenizer.encode_with(text, special, scratch, |id, _| {
                if let Some(place) = tokens.get_mut(needed) {
                    *place = id;
                }
                needed += 1;
                Ok::<(), CapacityError>(())
            })?;
            count.copied(needed, capacity)
        })
    }
}

/// The text of a token: `length` bytes that stay as long as the file does. It may be a part of a
/// UTF-8 character; the bytes of all tokens behind each other are the text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_token_text(
    model: *const pgpt_model,
    token: u32,
    text: *mut *const c_char,
    length: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let (mut text, mut length) = (Out::new(text, "text")?, Out::new(length, "length")?);
            let model = shared(model, "model")?;
            let vocab_size = model.model.config().vocab_size;
            if token >= vocab_size {
                return Err(Failure::Token { id: token, vocab_size });
            }
            // The tokenizer may have fewer than the model.
            let bytes = model.tokenizer()?.token_bytes(token).unwrap_or_default();
            text.write(bytes.as_ptr().cast());
            length.write(bytes.len());
            Ok(())
        })
    }
}
