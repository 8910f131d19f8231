//! A file in the page cache. Not in a library without std.

use core::ffi::{c_char, c_void};
use std::path::Path;

use pocketgpt_runtime::format::MappedFile;

use crate::boundary::{Out, c_text, guard};
use crate::error::{Failure, pgpt_error, pgpt_status};

/// A file, mapped into memory.
pub struct pgpt_file {
    map: MappedFile,
}

/// Maps a file, for pgpt_model_open. `path` is UTF-8. It must not be changed in place while it is
/// mapped. Not in a library without std.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_file_map(
    path: *const c_char,
    file: *mut *mut pgpt_file,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut file = Out::handle(file, "file")?;
            let path = c_text(path, "path")?;
            let map = MappedFile::open(Path::new(path))
                .map_err(|error| Failure::File { path: path.into(), error })?;
            file.write(Box::into_raw(Box::new(pgpt_file { map })));
            Ok(())
        })
    }
}

/// The file's bytes; NULL if the file is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_file_bytes(file: *const pgpt_file) -> *const c_void {
    // SAFETY: the contract of all functions.
    unsafe { file.as_ref() }.map_or(core::ptr::null(), |file| file.map.bytes().as_ptr().cast())
}

/// Number of the file's bytes; 0 if the file is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_file_length(file: *const pgpt_file) -> usize {
    // SAFETY: the contract of all functions.
    unsafe { file.as_ref() }.map_or(0, |file| file.map.bytes().len())
}

/// Unmaps a file: models in it must not be used any more. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_file_unmap(file: *mut pgpt_file) {
    if !file.is_null() {
        // SAFETY: it is from `pgpt_file_map` and is given back once.
        drop(unsafe { Box::from_raw(file) });
    }
}
