//! What can go wrong, as a code and in words.

use core::ffi::{CStr, c_char};
use core::fmt::{self, Write};

use pocketgpt_runtime::decoding::DecodingError;
use pocketgpt_runtime::error::{CapacityError, Error};
use pocketgpt_runtime::saved::SavedError;
use pocketgpt_runtime::tokenizer;

/// What a call gives back: PGPT_OK, or what went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "some errors need std"))]
#[repr(i32)]
pub enum pgpt_status {
    /// Done.
    PGPT_OK = 0,
    /// A pointer is NULL that must not be, or a handle does not fit another one.
    PGPT_ERROR_ARGUMENT = 1,
    /// A struct's size is none that this library knows: header and library do not fit.
    PGPT_ERROR_VERSION = 2,
    /// The memory given is too small; `needed` of the error says how much would do.
    PGPT_ERROR_MEMORY = 3,
    /// The bytes are no .pgpt file, or a damaged one.
    PGPT_ERROR_MODEL = 4,
    /// The file cannot be opened or mapped.
    PGPT_ERROR_FILE = 5,
    /// This CPU has no such instructions.
    PGPT_ERROR_ISA = 6,
    /// An option is outside its range, or makes no sense beside the others.
    PGPT_ERROR_OPTION = 7,
    /// A text is not UTF-8.
    PGPT_ERROR_UTF8 = 8,
    /// The file has no tokenizer.
    PGPT_ERROR_NO_TOKENIZER = 9,
    /// A token is not in the vocabulary, or there are none.
    PGPT_ERROR_TOKEN = 10,
    /// No position is left for these tokens.
    PGPT_ERROR_CONTEXT_FULL = 11,
    /// No token can be chosen: the options exclude all, or the weights are damaged.
    PGPT_ERROR_DECODING = 12,
    /// The system gives no thread.
    PGPT_ERROR_THREADS = 13,
    /// A mistake in this library. Nothing is leaked, but make the handles of the call anew.
    PGPT_ERROR_PANIC = 14,
    /// The bytes are no saved session, a damaged one, or one of another model file or other options.
    PGPT_ERROR_SAVED = 15,
    /// The caller's function that takes bytes gave up.
    PGPT_ERROR_WRITE = 16,
}

/// Bytes of a message, the NUL at its end included.
pub const PGPT_MESSAGE_SIZE: usize = 256;

/// What went wrong in a call, in the caller's memory.
#[repr(C)]
pub struct pgpt_error {
    /// As the call returned it; after a success PGPT_OK.
    pub status: pgpt_status,
    /// With PGPT_ERROR_MEMORY what would do, in the unit of what was given: bytes of a handle's
    /// memory, or tokens. Else 0.
    pub needed: usize,
    /// English, without a line break, UTF-8, ended by NUL; cut where it is too long.
    pub message: [c_char; PGPT_MESSAGE_SIZE],
}

impl pgpt_error {
    pub(crate) fn new(failure: Option<&Failure>) -> Self {
        let mut error =
            Self { status: pgpt_status::PGPT_OK, needed: 0, message: [0; PGPT_MESSAGE_SIZE] };
        if let Some(failure) = failure {
            (error.status, error.needed) = (failure.status(), failure.needed());
            let mut message = Message { text: &mut error.message, len: 0 };
            // A message that is cut is still one.
            let _ = write!(message, "{failure}");
        }
        error
    }
}

/// Writes as much text as fits and leaves a NUL behind it.
pub(crate) struct Message<'a> {
    pub(crate) text: &'a mut [c_char],
    pub(crate) len: usize,
}

impl Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.text.len() - 1 - self.len);
        for (to, from) in self.text[self.len..].iter_mut().zip(&text.as_bytes()[..fits]) {
            *to = *from as c_char;
        }
        self.len += fits;
        self.text[self.len] = 0;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The error of everything inside.
pub(crate) enum Failure {
    /// NULL in place of this parameter.
    Null(&'static str),
    /// Handles that do not fit each other, in words.
    Mismatch(&'static str),
    /// A struct with a size that is not known.
    Size {
        name: &'static str,
        found: usize,
        least: usize,
    },
    /// A code of an enumeration that is not known.
    Code {
        name: &'static str,
        found: u32,
    },
    /// An option that the runtime does not see, in words.
    Option(&'static str),
    Utf8 {
        name: &'static str,
        valid_up_to: usize,
    },
    Memory {
        needed: usize,
        given: usize,
    },
    NoTokenizer,
    NoTokens,
    Token {
        id: u32,
        vocab_size: u32,
    },
    Isa(pocketgpt_runtime::isa::Isa),
    Saved(SavedError),
    Write,
    Runtime(Error),
    #[cfg(feature = "std")]
    File {
        path: std::string::String,
        error: std::io::Error,
    },
    #[cfg(feature = "std")]
    Threads(std::io::Error),
    #[cfg(feature = "std")]
    Panic(std::string::String),
}

impl Failure {
    fn status(&self) -> pgpt_status {
        use pgpt_status::*;
        match self {
            Self::Null(_) | Self::Mismatch(_) => PGPT_ERROR_ARGUMENT,
            Self::Size { .. } => PGPT_ERROR_VERSION,
            Self::Code { .. } | Self::Option(_) => PGPT_ERROR_OPTION,
            Self::Utf8 { .. } => PGPT_ERROR_UTF8,
            Self::Memory { .. } => PGPT_ERROR_MEMORY,
            Self::NoTokenizer => PGPT_ERROR_NO_TOKENIZER,
            Self::NoTokens | Self::Token { .. } => PGPT_ERROR_TOKEN,
            Self::Isa(_) => PGPT_ERROR_ISA,
            Self::Saved(_) => PGPT_ERROR_SAVED,
            Self::Write => PGPT_ERROR_WRITE,
            Self::Runtime(error) => match error {
                Error::Format(_) => PGPT_ERROR_MODEL,
                Error::Tokenizer(_)
                | Error::Capacity(CapacityError::Workspace { .. })
                | Error::Decoding(DecodingError::Memory { .. }) => PGPT_ERROR_MEMORY,
                Error::Capacity(
                    CapacityError::ContextFull { .. } | CapacityError::SlotsFull { .. },
                ) => PGPT_ERROR_CONTEXT_FULL,
                Error::Capacity(CapacityError::TokenId { .. }) => PGPT_ERROR_TOKEN,
                Error::Capacity(_)
                | Error::Decoding(DecodingError::Option { .. } | DecodingError::Conflict { .. }) => {
                    PGPT_ERROR_OPTION
                }
                Error::Decoding(_) => PGPT_ERROR_DECODING,
            },
            #[cfg(feature = "std")]
            Self::File { .. } => PGPT_ERROR_FILE,
            #[cfg(feature = "std")]
            Self::Threads(_) => PGPT_ERROR_THREADS,
            #[cfg(feature = "std")]
            Self::Panic(_) => PGPT_ERROR_PANIC,
        }
    }

    fn needed(&self) -> usize {
        match *self {
            Self::Memory { needed, .. }
            | Self::Runtime(
                Error::Capacity(CapacityError::Workspace { needed, .. })
                | Error::Decoding(DecodingError::Memory { needed, .. })
                | Error::Tokenizer(
                    tokenizer::CapacityError::Output { needed, .. }
                    | tokenizer::CapacityError::Scratch { needed, .. },
                ),
            ) => needed,
            _ => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null(name) => write!(f, "{name} is NULL"),
            Self::Mismatch(words) | Self::Option(words) => f.write_str(words),
            Self::Size { name, found, least } => write!(
                f,
                "{name} has a size of {found} bytes, or is set where this library knows nothing: \
                 at least {least} are needed, or a newer library"
            ),
            Self::Code { name, found } => write!(f, "{name} is {found}, which there is not"),
            Self::Utf8 { name, valid_up_to } => {
                write!(f, "{name} is not UTF-8 at byte {valid_up_to}")
            }
            Self::Memory { needed, given } => {
                write!(f, "the memory has {given} bytes, {needed} are needed")
            }
            Self::NoTokenizer => f.write_str("the file has no tokenizer"),
            Self::NoTokens => f.write_str("there are no tokens to read"),
            Self::Token { id, vocab_size } => {
                write!(f, "token id {id} is not in the vocabulary of {vocab_size}")
            }
            Self::Isa(isa) => write!(f, "this machine does not have {isa}"),
            Self::Saved(SavedError::OtherModel) => {
                f.write_str("the session was saved with another model file")
            }
            Self::Saved(error) => write!(f, "saved session: {error}"),
            Self::Write => f.write_str("the function that takes bytes gave up"),
            Self::Runtime(error) => error.fmt(f),
            #[cfg(feature = "std")]
            Self::File { path, error } => write!(f, "{path}: {error}"),
            #[cfg(feature = "std")]
            Self::Threads(error) => write!(f, "threads: {error}"),
            #[cfg(feature = "std")]
            Self::Panic(message) => write!(f, "a mistake in pocketgpt: {message}"),
        }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Runtime(error.into())
    }
}

/// A short name of a status, such as "PGPT_ERROR_MEMORY"; of an unknown one "unknown".
#[unsafe(no_mangle)]
pub extern "C" fn pgpt_status_name(status: i32) -> *const c_char {
    const NAMES: [&CStr; 17] = [
        c"PGPT_OK",
        c"PGPT_ERROR_ARGUMENT",
        c"PGPT_ERROR_VERSION",
        c"PGPT_ERROR_MEMORY",
        c"PGPT_ERROR_MODEL",
        c"PGPT_ERROR_FILE",
        c"PGPT_ERROR_ISA",
        c"PGPT_ERROR_OPTION",
        c"PGPT_ERROR_UTF8",
        c"PGPT_ERROR_NO_TOKENIZER",
        c"PGPT_ERROR_TOKEN",
        c"PGPT_ERROR_CONTEXT_FULL",
        c"PGPT_ERROR_DECODING",
        c"PGPT_ERROR_THREADS",
        c"PGPT_ERROR_PANIC",
        c"PGPT_ERROR_SAVED",
        c"PGPT_ERROR_WRITE",
    ];
    usize::try_from(status).ok().and_then(|i| NAMES.get(i)).unwrap_or(&c"unknown").as_ptr()
}
