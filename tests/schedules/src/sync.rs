//! In place of `runtime/src/sync.rs`.

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use loom::sync::{Arc, Mutex, mpsc};
pub(crate) use loom::thread;

/// A worker looks twice and parks: with each look more there are many times more orders.
pub(crate) const SPINS: u32 = 0;
pub(crate) const YIELDS: u32 = 0;
