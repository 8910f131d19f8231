//! A text being read: tokens in, logits out.

use core::ffi::c_void;

use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::Plan;

use crate::boundary::{Out, array, exclusive, fill, guard, shared};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};
use crate::model::pgpt_model;
use crate::options::pgpt_options;
use crate::threads::{parallel, pgpt_threads};

/// A text being read: its keys and values, and memory to compute in.
pub struct pgpt_session {
    pub(crate) session: Session<'static, 'static>,
}

/// What a session's memory is used for, in bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_plan {
    /// Keys and values.
    pub kv_bytes: usize,
    /// Activations of a batch, and of each thread.
    pub scratch_bytes: usize,
    /// Logits.
    pub logits_bytes: usize,
    /// Tables of texts that are written side by side.
    pub branch_bytes: usize,
}

/// Tells what a session's memory will be used for. `plan_size` is sizeof(pgpt_plan).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_plan(
    model: *const pgpt_model,
    options: *const pgpt_options,
    plan: *mut pgpt_plan,
    plan_size: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let found = self::plan(shared(model, "model")?, &pgpt_options::read(options)?)?;
            let value = pgpt_plan {
                kv_bytes: found.kv_bytes,
                scratch_bytes: found.scratch_bytes,
                logits_bytes: found.logits_bytes,
                branch_bytes: found.branch_bytes,
            };
            fill(plan, plan_size, value, "plan")
        })
    }
}

fn plan(model: &pgpt_model, options: &pgpt_options) -> Result<Plan, Failure> {
    let config = model.model.config();
    Ok(Plan::new(config, &options.session(config)?)?)
}

fn needed_lines(plan: &Plan) -> usize {
    lines_of::<pgpt_session>(1).saturating_add(plan.lines())
}

/// Bytes of memory that a session with these options takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_size(
    model: *const pgpt_model,
    options: *const pgpt_options,
    size: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut size = Out::new(size, "size")?;
            let plan = plan(shared(model, "model")?, &pgpt_options::read(options)?)?;
            size.write(bytes_for(needed_lines(&plan)));
            Ok(())
        })
    }
}

/// Makes a session in the caller's memory, at any address. Afterwards nothing is allocated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_new(
    model: *const pgpt_model,
    options: *const pgpt_options,
    memory: *mut c_void,
    memory_size: usize,
    session: *mut *mut pgpt_session,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut session = Out::handle(session, "session")?;
            let (model, options) = (shared(model, "model")?, pgpt_options::read(options)?);
            let plan = plan(model, &options)?;
            let mut memory = Memory::new(memory, memory_size, needed_lines(&plan))?;
            let (options, lines) = (options.session(model.model.config())?, plan.lines());
            let made = Session::new(model.model, &options, memory.lines(lines))?;
            session.write(memory.handle(pgpt_session { session: made }));
            Ok(())
        })
    }
}

/// Reads tokens. `logits`, unless it is NULL, is set to `vocab_size` numbers that tell what may
/// follow the last one; they stay until the session is used again. Reading tokens together or one
/// by one gives the same bits. `threads` is NULL for one thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_feed(
    session: *mut pgpt_session,
    threads: *const pgpt_threads,
    tokens: *const u32,
    count: usize,
    logits: *mut *const f32,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let session = exclusive(session, "session")?.text()?;
            let tokens = array(tokens, count, "tokens")?;
            if tokens.is_empty() {
                return Err(Failure::NoTokens);
            }
            let found = session.feed(tokens, parallel(threads))?;
            if !logits.is_null() {
                Out::new(logits, "logits")?.write(found.as_ptr());
            }
            Ok(())
        })
    }
}

/// Tokens that have been read; 0 if the session is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_fed(session: *const pgpt_session) -> usize {
    // SAFETY: the contract of all functions.
    unsafe { session.as_ref() }.map_or(0, |session| session.session.fed())
}

/// Tokens that can still be read, SIZE_MAX where the context begins anew; 0 if the session is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_remaining(session: *const pgpt_session) -> usize {
    // SAFETY: the contract of all functions.
    unsafe { session.as_ref() }.map_or(0, |session| session.session.remaining())
}

/// Forgets all but the first `fed` tokens. 0 is always possible and makes the session new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_truncate(
    session: *mut pgpt_session,
    fed: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let handle = exclusive(session, "session")?;
            if fed > 0 {
                let session = handle.text()?;
                if fed > session.fed() {
                    return Err(Failure::Mismatch("so many tokens have not been read"));
                }
                if !session.can_truncate(fed) {
                    return Err(Failure::Mismatch(
                        "the window has slid, or the context begun anew: truncate to 0",
                    ));
                }
            }
            handle.session.truncate(fed);
            Ok(())
        })
    }
}

impl pgpt_session {
    /// The session, if it is one text.
    ///
    /// # Errors
    /// If a run that failed has left several.
    pub(crate) fn text(&mut self) -> Result<&mut Session<'static, 'static>, Failure> {
        if self.session.branches() > 0 {
            return Err(Failure::Mismatch(
                "a failed run has left several texts in the session: truncate it to 0",
            ));
        }
        Ok(&mut self.session)
    }
}
