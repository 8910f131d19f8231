//! What every function goes through: pointers in, codes out, and no panic between.

use core::ffi::{CStr, c_char};
use core::ptr::NonNull;

use pocketgpt_runtime::tokenizer::CapacityError;

use crate::error::{Failure, pgpt_error, pgpt_status};

/// Runs the body of a function and tells how it ended, in `error` as well unless it is NULL.
///
/// # Safety
/// `error` is NULL or can be written.
pub(crate) unsafe fn guard(
    error: *mut pgpt_error,
    work: impl FnOnce() -> Result<(), Failure>,
) -> pgpt_status {
    let result = pgpt_error::new(catch(work).err().as_ref());
    let status = result.status;
    if let Some(error) = NonNull::new(error) {
        // SAFETY: the caller's promise.
        unsafe { error.write(result) };
    }
    status
}

#[cfg(feature = "std")]
fn catch(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Err(Failure::Panic(text.unwrap_or("no message").into()))
    })
}

#[cfg(not(feature = "std"))]
fn catch(work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    work()
}

/// A parameter through which something is given back; it may point to memory never written.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Errors
    /// If it is NULL.
    ///
    /// # Safety
    /// It is NULL or can be written as long as this lives.
    pub(crate) unsafe fn new(pointer: *mut T, name: &'static str) -> Result<Self, Failure> {
        NonNull::new(pointer).map(Self).ok_or(Failure::Null(name))
    }

    pub(crate) fn write(&mut self, value: T) {
        // SAFETY: `new`'s promise.
        unsafe { self.0.write(value) };
    }
}

impl Out<usize> {
    /// The number of things that were copied, of the `needed` ones for which there was room for
    /// `capacity`.
    ///
    /// # Errors
    /// If that was not enough.
    pub(crate) fn copied(mut self, needed: usize, capacity: usize) -> Result<(), Failure> {
        self.write(needed.min(capacity));
        if needed > capacity {
            return Err(CapacityError::Output { needed, given: capacity }.into());
        }
        Ok(())
    }
}

impl<H> Out<*mut H> {
    /// One for a handle, which is NULL until it is written.
    ///
    /// # Errors
    /// If it is NULL.
    ///
    /// # Safety
    /// As of [`Out::new`].
    pub(crate) unsafe fn handle(pointer: *mut *mut H, name: &'static str) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        let mut out = unsafe { Self::new(pointer, name) }?;
        out.write(core::ptr::null_mut());
        Ok(out)
    }
}

/// Fills in a struct of a caller whose header may be older or newer: only as much as it has, and
/// zeros behind what is known here.
///
/// # Errors
/// If it is NULL, or smaller than the first version of the struct.
///
/// # Safety
/// `pointer` is NULL or `size` bytes from it can be written.
pub(crate) unsafe fn fill<T: Copy>(
    pointer: *mut T,
    size: usize,
    value: T,
    name: &'static str,
) -> Result<(), Failure> {
    // Fields are only added, so later versions are longer; this is still the first.
    let (known, least) = (size_of::<T>(), size_of::<T>());
    let Some(pointer) = NonNull::new(pointer) else { return Err(Failure::Null(name)) };
    if size < least {
        return Err(Failure::Size { name, found: size, least });
    }
    // SAFETY: the caller's promise; `known` is not more than `size`.
    unsafe {
        pointer.write(value);
        pointer.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}

/// Reads a struct whose first field is its size, of a caller whose header may be older or newer.
///
/// # Errors
/// If it is NULL, smaller than the first version of the struct, or not zero behind what is known
/// here: the caller asks for something that this library does not have.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose first field is its size, and that nothing changes
/// meanwhile.
pub(crate) unsafe fn sized<T: Copy>(pointer: *const T, name: &'static str) -> Result<T, Failure> {
    let (known, least) = (size_of::<T>(), size_of::<T>());
    if pointer.is_null() {
        return Err(Failure::Null(name));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < least {
        return Err(Failure::Size { name, found: size, least });
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { array(pointer.cast::<u8>(), size, name) }?;
    if bytes[known..].iter().any(|&byte| byte != 0) {
        return Err(Failure::Size { name, found: size, least });
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { pointer.read() })
}

/// # Errors
/// If it is NULL.
///
/// # Safety
/// It is NULL or points to a `T` that nothing changes meanwhile.
pub(crate) unsafe fn shared<'a, T>(
    pointer: *const T,
    name: &'static str,
) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null(name))
}

/// # Errors
/// If it is NULL.
///
/// # Safety
/// It is NULL or points to a `T` that nothing else uses meanwhile.
pub(crate) unsafe fn exclusive<'a, T>(
    pointer: *mut T,
    name: &'static str,
) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or(Failure::Null(name))
}

/// An array; NULL is one without elements.
///
/// # Errors
/// If it is NULL and has elements.
///
/// # Safety
/// `pointer` is NULL or points to `len` elements that nothing changes meanwhile.
pub(crate) unsafe fn array<'a, T>(
    pointer: *const T,
    len: usize,
    name: &'static str,
) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Failure::Null(name));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, len) })
}

/// [`array`], to be written to.
///
/// # Safety
/// As of [`array`], and nothing else uses the elements meanwhile.
pub(crate) unsafe fn array_mut<'a, T>(
    pointer: *mut T,
    len: usize,
    name: &'static str,
) -> Result<&'a mut [T], Failure> {
    if len == 0 {
        return Ok(&mut []);
    }
    if pointer.is_null() {
        return Err(Failure::Null(name));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, len) })
}

/// A text of this many bytes.
///
/// # Errors
/// If it is NULL and has bytes, or is not UTF-8.
///
/// # Safety
/// As of [`array`].
pub(crate) unsafe fn text<'a>(
    pointer: *const c_char,
    len: usize,
    name: &'static str,
) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    utf8(unsafe { array(pointer.cast(), len, name) }?, name)
}

/// A text that ends with NUL.
///
/// # Errors
/// If it is NULL or not UTF-8.
///
/// # Safety
/// `pointer` is NULL or points to a text that ends with NUL and that nothing changes meanwhile.
pub(crate) unsafe fn c_text<'a>(
    pointer: *const c_char,
    name: &'static str,
) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::Null(name));
    }
    // SAFETY: the caller's promise.
    utf8(unsafe { CStr::from_ptr(pointer) }.to_bytes(), name)
}

fn utf8<'a>(bytes: &'a [u8], name: &'static str) -> Result<&'a str, Failure> {
    core::str::from_utf8(bytes)
        .map_err(|error| Failure::Utf8 { name, valid_up_to: error.valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(error: &pgpt_error) -> &str {
        // SAFETY: a message ends with NUL.
        unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_message() {
        let mut error = pgpt_error::new(None);
        // SAFETY: it is a reference.
        let status = unsafe { guard(&mut error, || panic!("index {} is too large", 7)) };
        assert_eq!((status, error.status), (pgpt_status::PGPT_ERROR_PANIC, status));
        assert_eq!(message(&error), "a mistake in pocketgpt: index 7 is too large");
        // SAFETY: NULL is allowed.
        let status = unsafe { guard(core::ptr::null_mut(), || panic!("on purpose")) };
        assert_eq!(status, pgpt_status::PGPT_ERROR_PANIC);
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        let words = Failure::Panic("ä".repeat(200));
        let error = pgpt_error::new(Some(&words));
        let text = message(&error);
        assert!(text.ends_with('ä') && (253..256).contains(&text.len()), "{text}");
    }
}
