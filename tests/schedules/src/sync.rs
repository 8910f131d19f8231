//! In place of `runtime/src/sync.rs`.

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::hint::spin_loop;
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32};
pub(crate) use loom::sync::{Arc, Mutex, mpsc};
pub(crate) use loom::thread;

/// A worker looks and parks: with each look more there are many times more orders. And it does not
/// yield before, since a thread of loom's that yielded reads no value again that it saw before: then a
/// flag without its ordering would be none the worse.
pub(crate) const SPINS: u32 = 0;
pub(crate) const YIELDS: u32 = 0;
