//! Threads to compute with.

use pocketgpt_runtime::parallel::{Parallel, Serial};
#[cfg(feature = "std")]
use pocketgpt_runtime::pool::ThreadPool;

#[cfg(feature = "std")]
use crate::boundary::{Out, guard};
#[cfg(feature = "std")]
use crate::error::{Failure, pgpt_error, pgpt_status};

/// Threads that wait for work.
pub struct pgpt_threads {
    #[cfg(feature = "std")]
    pool: ThreadPool,
    #[cfg(not(feature = "std"))]
    pool: Serial,
}

/// Starts threads, `count` with the calling one: 1 to 32. Not in a library without std.
#[cfg(feature = "std")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_threads_new(
    count: u32,
    threads: *mut *mut pgpt_threads,
    error: *mut pgpt_error,
) -> pgpt_status {
    // SAFETY: the contract of all functions.
    unsafe {
        guard(error, || {
            let mut threads = Out::handle(threads, "threads")?;
            let pool = ThreadPool::new(count as usize).map_err(Failure::Threads)?;
            threads.write(Box::into_raw(Box::new(pgpt_threads { pool })));
            Ok(())
        })
    }
}

/// Ends the threads. NULL does nothing.
#[cfg(feature = "std")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgpt_threads_free(threads: *mut pgpt_threads) {
    if !threads.is_null() {
        // SAFETY: it is from `pgpt_threads_new` and is given back once.
        let threads = unsafe { Box::from_raw(threads) };
        // SAFETY: NULL is allowed; there is no one to tell of a panic.
        unsafe {
            guard(core::ptr::null_mut(), || {
                drop(threads);
                Ok(())
            })
        };
    }
}

/// The threads, or the calling one.
///
/// # Safety
/// The contract of all functions.
pub(crate) unsafe fn parallel<'a>(threads: *const pgpt_threads) -> &'a dyn Parallel {
    // SAFETY: the caller's promise.
    unsafe { threads.as_ref() }.map_or(&Serial, |threads| &threads.pool)
}
