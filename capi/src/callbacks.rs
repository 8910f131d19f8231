//! What a run tells its caller on the way.

use core::ffi::{c_char, c_int, c_void};
use core::ops::ControlFlow;

use pocketgpt_runtime::generate::Observer;
use pocketgpt_runtime::tokenizer::{TokenizerView, Utf8Stream};
use pocketgpt_runtime::workspace::SessionOptions;

/// Functions that a run calls, each NULL where it is not wanted. They must not use the session or
/// the generator, and must return: no longjmp, no C++ exception.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct pgpt_callbacks {
    /// sizeof(pgpt_callbacks)
    pub size: usize,
    /// Handed to every function.
    pub user: *mut c_void,
    /// A new token of a sequence, numbered from 0. Anything but 0 ends the sequence with it. A beam
    /// search is certain of nothing before its end: see pgpt_generator_get_sequence.
    pub token: Option<unsafe extern "C" fn(user: *mut c_void, sequence: u32, token: u32) -> c_int>,
    /// New text of a sequence: `length` bytes of whole UTF-8 characters, not ended by NUL. Anything
    /// but 0 ends the sequence. Called behind `token`.
    pub text: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            sequence: u32,
            text: *const c_char,
            length: usize,
        ) -> c_int,
    >,
    /// Comes before each pass through the model but the first. Anything but 0 ends the run.
    pub step: Option<unsafe extern "C" fn(user: *mut c_void) -> c_int>,
}

/// Calls a C caller's functions.
pub(crate) struct Caller {
    callbacks: Option<pgpt_callbacks>,
    tokenizer: Option<TokenizerView<'static>>,
    streams: [Utf8Stream; SessionOptions::MAX_BRANCHES],
}

impl Caller {
    pub(crate) fn new(
        callbacks: Option<pgpt_callbacks>,
        tokenizer: Option<TokenizerView<'static>>,
    ) -> Self {
        let streams = core::array::from_fn(|_| Utf8Stream::new());
        Self { callbacks, tokenizer, streams }
    }

    /// Hands over text that was held back because a character is not complete.
    pub(crate) fn finish(&mut self) {
        let Some(callbacks) = self.callbacks else { return };
        for (sequence, stream) in (0..).zip(&mut self.streams) {
            stream.finish(|piece| {
                callbacks.text(sequence, piece);
            });
        }
    }
}

impl pgpt_callbacks {
    fn text(&self, sequence: u32, piece: &str) -> bool {
        // SAFETY: the caller's function, with what its type says.
        self.text.is_some_and(|text| unsafe {
            text(self.user, sequence, piece.as_ptr().cast(), piece.len()) != 0
        })
    }
}

fn flow(stop: bool) -> ControlFlow<()> {
    if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Observer for Caller {
    fn token(&mut self, sequence: usize, token: u32) -> ControlFlow<()> {
        let Some(callbacks) = self.callbacks else { return ControlFlow::Continue(()) };
        let number = sequence as u32;
        // SAFETY: the caller's function, with what its type says.
        let mut stop =
            callbacks.token.is_some_and(|call| unsafe { call(callbacks.user, number, token) != 0 });
        if let (Some(tokenizer), Some(_)) = (self.tokenizer, callbacks.text) {
            let bytes = tokenizer.token_bytes(token).unwrap_or_default();
            self.streams[sequence].push(bytes, |piece| stop |= callbacks.text(number, piece));
        }
        flow(stop)
    }

    fn step(&mut self) -> ControlFlow<()> {
        let step = self.callbacks.and_then(|callbacks| Some((callbacks.step?, callbacks.user)));
        // SAFETY: the caller's function, with what its type says.
        flow(step.is_some_and(|(call, user)| unsafe { call(user) != 0 }))
    }
}
