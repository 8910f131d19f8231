//! A library without std: a mistake in it ends in the program's own function.

use core::ffi::c_char;
use core::fmt::Write;
use core::panic::PanicInfo;

use crate::error::{Message, PGPT_MESSAGE_SIZE};

unsafe extern "C" {
    /// Written by the program that links a library without std: called for a mistake in the library,
    /// with what happened in words. It must not return: reset, or stop.
    fn pgpt_panic(message: *const c_char) -> !;
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut text = [0; PGPT_MESSAGE_SIZE];
    // A message that is cut is still one.
    let _ = write!(Message { text: &mut text, len: 0 }, "{info}");
    // SAFETY: the program has this function, or it would not link; the text ends with NUL.
    unsafe { pgpt_panic(text.as_ptr()) }
}
