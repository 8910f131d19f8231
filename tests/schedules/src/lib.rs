//! The runtime's own `parallel.rs` and `pool.rs` over [loom]'s atomics, cells, locks and threads.
//!
//! A test with these runs again and again, until every order of its threads that matters has been
//! seen, old values that a weak ordering allows to be read included, but for those that a thread
//! saw before it yielded. A cell that is read while it is
//! written, a thread that waits for ever and a value that arrives too late fail it.

#[path = "../../../runtime/src/parallel.rs"]
#[allow(dead_code, reason = "shares are for the layers")]
pub mod parallel;
#[path = "../../../runtime/src/pool.rs"]
#[allow(clippy::absurd_extreme_comparisons, reason = "workers do not spin here")]
pub mod pool;
mod sync;

/// What the layers of the network call: see `parallel::scatter`.
pub fn scatter<T: Send>(
    par: &dyn parallel::Parallel,
    parts: impl Iterator<Item = T>,
    work: impl Fn(T) + Sync,
) {
    parallel::scatter(par, parts, work);
}
