//! Texts to go on with later: a session is saved, and taken up again.

use core::ffi::{c_char, c_int, c_void};

use pocketgpt_runtime::saved::{MAX_METADATA_LEN, SavedSession, SavedText};
use pocketgpt_runtime::session::Session;

use crate::boundary::{Out, array, array_mut, exclusive, fill, guard, shared, sized, text};
use crate::error::{Failure, pgpt_error, pgpt_status};
use crate::memory::{Memory, bytes_for, lines_of};
use crate::model::pgpt_model;
use crate::options::pgpt_options;
use crate::session::pgpt_session;

/// A saved session: the caller's bytes, proven.
pub struct pgpt_saved {
    saved: SavedSession<'static>,
}

/// What is saved beside the keys and values of a session.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_saved_text {
    /// sizeof(pgpt_saved_text)
    pub size: usize,
    /// The whole text, at least one token. The session has read its first ones (pgpt_session_fed), as a
    /// rule all but the last.
    pub tokens: *const u32,
    pub count: usize,
    /// How many of the tokens, the last ones, were written by the model.
    pub new_tokens: usize,
    /// What draws follow from.
    pub seed: u64,
    /// Anything else, UTF-8 of at most 1 MiB; `pocketgpt generate --load-session` takes "{}".
    pub metadata: *const c_char,
    pub metadata_length: usize,
}

/// What a saved session is.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_saved_info {
    /// One of pgpt_kv.
    pub kv: u32,
    /// One of pgpt_overflow.
    pub overflow: u32,
    /// As of pgpt_options; `tail` is 0 where the text ends with the context.
    pub window: u32,
    pub keep: u32,
    pub tail: u32,
    /// Position of the next token in the context.
    pub position: u32,
    /// Tokens of the text that the session has read.
    pub fed: usize,
    /// Tokens of the text.
    pub count: usize,
    /// How many of them, the last ones, were written by the model.
    pub new_tokens: usize,
    /// What draws follow from.
    pub seed: u64,
    /// What was saved with it, not ended by NUL; stays as long as the saved bytes.
    pub metadata: *const c_char,
    pub metadata_length: usize,
}

/// Takes `length` bytes behind those of the call before; anything but 0 gives up.
pub type pgpt_write =
    Option<unsafe extern "C" fn(user: *mut c_void, bytes: *const c_void, length: usize) -> c_int>;

/// The session and its text, if they fit each other.
///
/// # Safety
/// The contract of all functions.
unsafe fn text_of<'a>(
    session: *mut pgpt_session,
    saved: *const pgpt_saved_text,
) -> Result<(&'a mut Session<'static, 'static>, SavedText<'a>), Failure> {
    // SAFETY: the caller's promise.
    let (session, tokens, metadata, saved) = unsafe {
        let session = exclusive(session, "session")?.text()?;
        let saved = sized(saved, "text")?;
        let tokens = array(saved.tokens, saved.count, "tokens")?;
        let metadata = text(saved.metadata, saved.metadata_length, "metadata")?;
        (session, tokens, metadata, saved)
    };
    let vocab_size = session.model().config().vocab_size;
    if tokens.is_empty() {
        return Err(Failure::NoTokens);
    }
    if let Some(&id) = tokens.iter().find(|&&id| id >= vocab_size) {
        return Err(Failure::Token { id, vocab_size });
    }
    let mismatch = if tokens.len() < session.fed() {
        Some("the session has read more tokens than the text has")
    } else if tokens.len() < saved.new_tokens {
        Some("more tokens are new than the text has")
    } else if metadata.len() > MAX_METADATA_LEN {
        Some("the metadata is longer than 1 MiB")
    } else {
        None
    };
    let (new_tokens, seed) = (saved.new_tokens, saved.seed);
    match mismatch {
        Some(words) => Err(Failure::Mismatch(words)),
        None => Ok((session, SavedText { tokens, new_tokens, seed, metadata })),
    }
}

/// How many bytes pgpt_session_save will write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_save_size(
    session: *mut pgpt_session,
    text: *const pgpt_saved_text,
    size: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut size = Out::new(size, "size")?;
            let (session, text) = text_of(session, text)?;
            size.write(session.saved_len(&text));
            Ok(())
        })
    }
}

/// Saves a session with its text, to go on from later or on another machine, with the same model
/// file: `write` is called with one piece after the other, and with `user`. It must not use the session,
/// and must return. Nothing is allocated, and the session stays as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_save(
    session: *mut pgpt_session,
    text: *const pgpt_saved_text,
    write: pgpt_write,
    user: *mut c_void,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let write = write.ok_or(Failure::Null("write"))?;
            let (session, text) = text_of(session, text)?;
            session.save(&text, |piece| match write(user, piece.as_ptr().cast(), piece.len()) {
                0 => Ok(()),
                _ => Err(Failure::Write),
            })
        })
    }
}

/// Bytes of memory that the handle of a saved session takes. The saved bytes come on top, and stay
/// where they are.
#[unsafe(no_mangle)]
pub extern "C" fn pgpt_saved_size() -> usize {
    bytes_for(lines_of::<pgpt_saved>(1))
}

/// Opens what pgpt_session_save wrote, at any address. All of it is proven but the keys and values,
/// which pgpt_session_restore looks at: bytes from anywhere may be given. The bytes and the memory must
/// stay while the handle is used; there is nothing to close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_saved_open(
    model: *const pgpt_model,
    bytes: *const c_void,
    length: usize,
    memory: *mut c_void,
    memory_size: usize,
    saved: *mut *mut pgpt_saved,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut saved = Out::handle(saved, "saved")?;
            let model = shared(model, "model")?;
            if bytes.is_null() {
                return Err(Failure::Null("bytes"));
            }
            let found =
                SavedSession::new(array(bytes.cast(), length, "bytes")?, model.model.file())
                    .map_err(Failure::Saved)?;
            let mut memory = Memory::new(memory, memory_size, lines_of::<pgpt_saved>(1))?;
            saved.write(memory.handle(pgpt_saved { saved: found }));
            Ok(())
        })
    }
}

/// Tells what was saved. `info_size` is sizeof(pgpt_saved_info).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_saved_get_info(
    saved: *const pgpt_saved,
    info: *mut pgpt_saved_info,
    info_size: usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let saved = &shared(saved, "saved")?.saved;
            let (header, metadata) = (saved.header(), saved.metadata());
            let value = pgpt_saved_info {
                kv: header.kv as u32,
                overflow: header.overflow as u32,
                window: header.window,
                keep: header.keep,
                tail: header.tail,
                position: header.position,
                fed: header.fed as usize,
                count: saved.tokens().len(),
                new_tokens: saved.new_tokens(),
                seed: saved.seed(),
                metadata: metadata.as_ptr().cast(),
                metadata_length: metadata.len(),
            };
            fill(info, info_size, value, "info")
        })
    }
}

/// Copies the saved text and tells its number of tokens in `count`. If there is no room for all
/// (`capacity`, in tokens), the error tells in `needed` how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_saved_tokens(
    saved: *const pgpt_saved,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let count = Out::new(count, "count")?;
            let found = shared(saved, "saved")?.saved.tokens();
            let (needed, tokens) = (found.len(), array_mut(tokens, capacity, "tokens")?);
            for (place, token) in tokens.iter_mut().zip(found) {
                *place = token;
            }
            count.copied(needed, capacity)
        })
    }
}

/// Sets those options on which the keys and values depend (`kv`, `window`, `keep`, `overflow`,
/// `tail`), and the seed, as they were saved. A session that takes up what was saved is made with
/// these; a text whose overflow was PGPT_OVERFLOW_STOP may also go on with PGPT_OVERFLOW_REFILL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_saved_set_options(
    saved: *const pgpt_saved,
    options: *mut pgpt_options,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let (header, found) =
                (shared(saved, "saved")?.saved.header(), pgpt_options::read(options)?);
            let value = pgpt_options {
                kv: header.kv as u32,
                window: header.window,
                keep: header.keep,
                overflow: header.overflow as u32,
                tail: header.tail,
                seed: header.seed,
                ..found
            };
            fill(options, value.size, value, "options")
        })
    }
}

/// Takes up what was saved, whatever the session has read before. If a number of the keys and values
/// is none that a token leaves, or the session was made with other options, the session is as new.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_session_restore(
    session: *mut pgpt_session,
    saved: *const pgpt_saved,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let session = exclusive(session, "session")?.text()?;
            let saved = &shared(saved, "saved")?.saved;
            let of = (saved.header().model_len, saved.header().model_crc);
            if of != session.model().file().identity() {
                return Err(Failure::Mismatch("session and saved session are of different models"));
            }
            session.restore(saved).map_err(Failure::Saved)
        })
    }
}
