//! What the threads of a pool share, and how they wait.
//!
//! `tests/schedules` compiles `parallel.rs` and `pool.rs` with a module of this name of its own, whose
//! types try every order in which threads can run.

pub(crate) use core::sync::atomic::AtomicBool;

#[cfg(feature = "std")]
pub(crate) use self::with_threads::*;

#[cfg(feature = "std")]
mod with_threads {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::AtomicU32;
    pub(crate) use std::sync::{Arc, Mutex, mpsc};
    pub(crate) use std::thread;

    /// A worker looks at the epoch this often before it yields: some 20 µs.
    pub(crate) const SPINS: u32 = if cfg!(miri) { 2 } else { 1000 };
    /// And yields this often before it parks.
    pub(crate) const YIELDS: u32 = if cfg!(miri) { 2 } else { 100 };
}

/// A cell that says when it is read and when it is written.
pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// Looks at the value, which nothing may write meanwhile.
    #[cfg(feature = "std")]
    #[inline]
    pub(crate) fn with<R>(&self, look: impl FnOnce(*const T) -> R) -> R {
        look(self.0.get())
    }

    /// Writes the value, which nothing else may use meanwhile.
    #[inline]
    pub(crate) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}
