//! Texts, with any strategy.

use core::ffi::c_void;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::decoding::StopReason;
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::tokenizer::TokenizerView;

use crate::boundary::{Out, array, exclusive, fill, guard, shared, sized};
use crate::callbacks::{Caller, pgpt_callbacks};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};
use crate::model::pgpt_model;
use crate::options::pgpt_options;
use crate::session::pgpt_session;
use crate::threads::{parallel, pgpt_threads};

/// Writes texts.
pub struct pgpt_generator {
    generator: Generator<'static, 'static>,
    config: Gpt2Config,
    tokenizer: Option<TokenizerView<'static>>,
}

/// Why a text ends.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum pgpt_stop_reason {
    /// The model ended it.
    PGPT_STOP_END_OF_TEXT = 1,
    /// It has as many tokens as were asked for.
    PGPT_STOP_MAX_NEW_TOKENS = 2,
    /// It ends with one of the stop texts.
    PGPT_STOP_TEXT = 3,
    /// No position is left.
    PGPT_STOP_CONTEXT_FULL = 4,
    /// A callback said so.
    PGPT_STOP_INTERRUPTED = 5,
}

/// A text that was written.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_sequence {
    /// What follows the prompt, without the token that ends it; stays until the next run.
    pub tokens: *const u32,
    /// Number of these tokens.
    pub count: usize,
    /// With beam search the log-probability of the new tokens divided by their number to the power
    /// of `length_penalty`, else 0.
    pub score: f32,
    /// One of pgpt_stop_reason.
    pub stop_reason: u32,
}

fn needed_lines(model: &pgpt_model, options: &pgpt_options) -> Result<usize, Failure> {
    let decoding = options.plain_decoding()?;
    let own = Generator::lines(model.model.config(), &decoding, options.max_prompt as usize)?;
    Ok(lines_of::<pgpt_generator>(1).saturating_add(options.list_lines()).saturating_add(own))
}

/// Bytes of memory that a generator with these options takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_size(
    model: *const pgpt_model,
    options: *const pgpt_options,
    size: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut size = Out::new(size, "size")?;
            let (model, options) = (shared(model, "model")?, pgpt_options::read(options)?);
            size.write(bytes_for(needed_lines(model, &options)?));
            Ok(())
        })
    }
}

/// Makes a generator in the caller's memory, at any address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_new(
    model: *const pgpt_model,
    options: *const pgpt_options,
    memory: *mut c_void,
    memory_size: usize,
    generator: *mut *mut pgpt_generator,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut generator = Out::handle(generator, "generator")?;
            let (model, options) = (shared(model, "model")?, pgpt_options::read(options)?);
            let mut memory = Memory::new(memory, memory_size, needed_lines(model, &options)?)?;
            let decoding = options.decoding(model, &mut memory)?;
            let (config, max_prompt) = (*model.model.config(), options.max_prompt as usize);
            let own = memory.lines(Generator::lines(&config, &decoding, max_prompt)?);
            let made = Generator::new(&config, &decoding, max_prompt, own)?;
            let tokenizer = model.tokenizer().ok();
            let handle = pgpt_generator { generator: made, config, tokenizer };
            generator.write(memory.handle(handle));
            Ok(())
        })
    }
}

/// What the next run's draws follow from.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_set_seed(
    generator: *mut pgpt_generator,
    seed: u64,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            exclusive(generator, "generator")?.generator.set_seed(seed);
            Ok(())
        })
    }
}

/// Continues a text, of which the session has read the first tokens (pgpt_session_fed), or
/// none. The session must be of the same model and options. `threads` and `callbacks` may be NULL.
///
/// Afterwards the session has read what there is of the text, so that it can be gone on with; with
/// several sequences and beams, the prompt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_run(
    generator: *mut pgpt_generator,
    session: *mut pgpt_session,
    threads: *const pgpt_threads,
    tokens: *const u32,
    count: usize,
    callbacks: *const pgpt_callbacks,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        pgpt_generator_resume(generator, session, threads, tokens, count, 0, callbacks, error)
    }
}

/// Goes on with a text of which an earlier run with the same options and seed has written the last
/// `new_tokens`, as if it had not ended: `max_new_tokens` counts those as well, and draws follow those
/// that were made. Else as pgpt_generator_run; with new tokens, one sequence written token by token.
/// The earlier run must not have ended with the model's own end of the text. See pgpt_session_save.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_resume(
    generator: *mut pgpt_generator,
    session: *mut pgpt_session,
    threads: *const pgpt_threads,
    tokens: *const u32,
    count: usize,
    new_tokens: usize,
    callbacks: *const pgpt_callbacks,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let handle = exclusive(generator, "generator")?;
            let session = exclusive(session, "session")?.text()?;
            let tokens = array(tokens, count, "tokens")?;
            let callbacks = match callbacks.is_null() {
                true => None,
                false => Some(sized(callbacks, "callbacks")?),
            };
            if *session.model().config() != handle.config {
                return Err(Failure::Mismatch("session and generator are of different models"));
            }
            if new_tokens > tokens.len() {
                return Err(Failure::Mismatch("more tokens are new than the text has"));
            }
            if tokens.len() <= session.fed() {
                return Err(match tokens.is_empty() {
                    true => Failure::NoTokens,
                    false => Failure::Mismatch(
                        "the session has read as many tokens as the text has, or more: truncate it",
                    ),
                });
            }
            let mut caller = Caller::new(callbacks, handle.tokenizer);
            let result = handle.generator.resume(
                session,
                parallel(threads),
                tokens,
                new_tokens,
                &mut caller,
            );
            caller.finish();
            Ok(result?)
        })
    }
}

/// How many sequences the last run gave; 0 if the generator is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_sequences(generator: *const pgpt_generator) -> usize {
    // SAFETY: the contract of all functions.
    unsafe { generator.as_ref() }.map_or(0, |handle| handle.generator.sequences().count())
}

/// One of the sequences that the last run gave, the best first with beam search. `sequence_size` is
/// sizeof(pgpt_sequence).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_generator_get_sequence(
    generator: *const pgpt_generator,
    index: usize,
    sequence: *mut pgpt_sequence,
    sequence_size: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let handle = shared(generator, "generator")?;
            let found = handle.generator.sequences().nth(index);
            let found = found.ok_or(Failure::Mismatch("there is no such sequence"))?;
            let value = pgpt_sequence {
                tokens: found.tokens.as_ptr(),
                count: found.tokens.len(),
                score: found.score.unwrap_or(0.0),
                stop_reason: stop_reason(found.stop_reason) as u32,
            };
            fill(sequence, sequence_size, value, "sequence")
        })
    }
}

fn stop_reason(reason: StopReason) -> pgpt_stop_reason {
    match reason {
        StopReason::EndOfText => pgpt_stop_reason::PGPT_STOP_END_OF_TEXT,
        StopReason::MaxNewTokens => pgpt_stop_reason::PGPT_STOP_MAX_NEW_TOKENS,
        StopReason::StopText => pgpt_stop_reason::PGPT_STOP_TEXT,
        StopReason::ContextFull => pgpt_stop_reason::PGPT_STOP_CONTEXT_FULL,
        StopReason::Interrupted => pgpt_stop_reason::PGPT_STOP_INTERRUPTED,
    }
}
