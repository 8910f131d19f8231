//! Running a job on several threads, with whatever threads the caller has.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

use crate::sync::{AtomicBool, UnsafeCell};

/// Largest number of threads that share a token's work.
pub const MAX_THREADS: usize = 32;

/// Something that runs jobs on threads: [`Serial`], [`crate::pool::ThreadPool`], or the caller's own.
pub trait Parallel {
    /// How many threads take part, 1 to [`MAX_THREADS`]; always the same number.
    fn threads(&self) -> usize;
    /// Calls `job(0)` and, on threads that have time, `job(1)`, …, `job(threads - 1)`, possibly at
    /// the same time; returns when all calls have returned.
    ///
    /// Only `job(0)` is sure to be called, and another index may be called more than once: a job
    /// hands out its parts itself and takes over the shares of threads that do not come,
    /// so that a busy machine does not make it wait for one that the system does not run.
    fn run(&self, job: &(dyn Fn(usize) + Sync));
}

/// Everything on the calling thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }
    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        job(0);
    }
}

/// A value that one thread may take.
struct Slot<T> {
    taken: AtomicBool,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: (4) the value is reached only through `take`, which lets one thread in once.
unsafe impl<T: Send> Sync for Slot<T> {}

impl<T> Slot<T> {
    fn take(&self) -> Option<T> {
        if self.taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        // SAFETY: (4) the flag was false and is true for good now, so nothing else gets here.
        self.value.with_mut(|value| unsafe { (*value).take() })
    }
}

/// Hands each thread its part of some work; a thread that is done takes parts that nobody began.
///
/// # Panics
/// If there are more than [`MAX_THREADS`] parts.
pub(crate) fn scatter<T: Send>(
    par: &dyn Parallel,
    parts: impl Iterator<Item = T>,
    work: impl Fn(T) + Sync,
) {
    // Empty first: to move a part, or that there is none, into each of the slots took 64 000
    // instructions a token.
    let slots: [Slot<T>; MAX_THREADS] = core::array::from_fn(|_| Slot {
        taken: AtomicBool::new(false),
        value: UnsafeCell::new(None),
    });
    let mut count = 0;
    for part in parts {
        assert!(count < MAX_THREADS, "more than {MAX_THREADS} parts");
        // SAFETY: (4) nothing else knows of the slots yet.
        slots[count].value.with_mut(|value| unsafe { *value = Some(part) });
        count += 1;
    }
    let slots = &slots[..count];
    par.run(&|thread| {
        let first = thread.min(count);
        for slot in slots[first..].iter().chain(&slots[..first]) {
            if let Some(part) = slot.take() {
                work(part);
            }
        }
    });
}

/// The `i`-th of `parts` nearly equal ranges of `0..n`.
pub(crate) fn share(n: usize, parts: usize, i: usize) -> core::ops::Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

/// The `i`-th of `parts` ranges of `0..n` that have nearly as many whole units; the last unit may be
/// short.
pub(crate) fn share_of_units(
    n: usize,
    unit: usize,
    parts: usize,
    i: usize,
) -> core::ops::Range<usize> {
    let units = share(n.div_ceil(unit), parts, i);
    units.start * unit..n.min(units.end * unit)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_worked_on_once() {
        for n in 0..=MAX_THREADS {
            let mut seen = [0u8; MAX_THREADS];
            scatter(&Serial, seen[..n].iter_mut(), |part| *part += 1);
            assert!(seen[..n].iter().all(|&s| s == 1) && seen[n..].iter().all(|&s| s == 0));
        }
    }

    #[test]
    #[should_panic(expected = "more than")]
    fn too_many_parts_are_refused() {
        scatter(&Serial, [(); MAX_THREADS + 1].into_iter(), |()| {});
    }

    #[test]
    fn shares_tile_the_whole() {
        for n in 0..40 {
            for parts in 1..9 {
                let mut end = 0;
                for i in 0..parts {
                    let range = share(n, parts, i);
                    assert_eq!(range.start, end);
                    end = range.end;
                }
                assert_eq!(end, n);
            }
        }
    }
}
