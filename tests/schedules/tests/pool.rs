//! The pool's promises, in every order that loom knows.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use pocketgpt_schedules::parallel::Parallel;
use pocketgpt_schedules::pool::ThreadPool;
use pocketgpt_schedules::scatter;

/// Runs a model in all orders in which threads are interrupted at most so often where they could go
/// on.
fn with_interruptions(most: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(most);
    builder.max_branches = 10_000;
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&orders);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} orders", orders.load(Ordering::Relaxed));
}

/// Numbers that one thread after the other may write: loom looks on.
struct Parts<const N: usize>([UnsafeCell<u32>; N]);

// SAFETY: what is claimed here is what the models test.
unsafe impl<const N: usize> Sync for Parts<N> {}

impl<const N: usize> Parts<N> {
    fn new() -> Self {
        Self(core::array::from_fn(|_| UnsafeCell::new(0)))
    }

    /// Adds 1 to each, as many threads as there are.
    fn add(&self, pool: &ThreadPool) {
        scatter(pool, 0..N, |part| {
            // SAFETY: `scatter` hands out a part once.
            self.0[part].with_mut(|number| unsafe { *number += 1 });
        });
    }

    fn expect(&self, expected: u32) {
        for part in &self.0 {
            // SAFETY: `run` returns when nobody is at work any more.
            assert_eq!(part.with(|number| unsafe { *number }), expected);
        }
    }
}

/// Each job is done when `run` returns, whether the worker looks, is about to park, sleeps, or comes
/// when the job is over; a worker that sleeps is woken to end.
#[test]
fn jobs_one_after_the_other() {
    with_interruptions(3, || {
        let pool = ThreadPool::new(2).unwrap();
        let parts = Parts::<2>::new();
        for job in 1..=3 {
            parts.add(&pool);
            parts.expect(job);
        }
    });
}

/// More workers; what one of them leaves is taken over.
#[test]
fn two_workers() {
    for (interruptions, jobs) in [(2, 1), (1, 2)] {
        with_interruptions(interruptions, move || {
            let pool = ThreadPool::new(3).unwrap();
            let parts = Parts::<3>::new();
            for job in 1..=jobs {
                parts.add(&pool);
                parts.expect(job);
            }
        });
    }
}

/// A worker is woken for a job that waits for it, however long it has been asleep.
#[test]
fn a_job_that_both_must_come_to() {
    with_interruptions(2, || {
        let pool = ThreadPool::new(2).unwrap();
        for _ in 0..2 {
            let came = AtomicBool::new(false);
            pool.run(&|thread| match thread {
                0 => {
                    while !came.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                }
                _ => came.store(true, Ordering::Relaxed),
            });
        }
    });
}

/// A pool that ends at once: its workers have not begun to look.
#[test]
fn no_job_at_all() {
    with_interruptions(4, || drop(ThreadPool::new(3).unwrap()));
}

/// Two threads with jobs for one pool: one after the other.
#[test]
fn two_callers() {
    with_interruptions(2, || {
        let pool = Arc::new(ThreadPool::new(2).unwrap());
        let parts = Arc::new(Parts::<2>::new());
        let other = {
            let (pool, parts) = (Arc::clone(&pool), Arc::clone(&parts));
            thread::spawn(move || parts.add(&pool))
        };
        parts.add(&pool);
        other.join().unwrap();
        parts.expect(2);
    });
}

/// A panic of any thread reaches the caller of its job, and not of the next one.
#[test]
fn panics() {
    with_interruptions(3, || {
        let pool = ThreadPool::new(2).unwrap();
        let parts = Parts::<2>::new();
        let met = AtomicBool::new(false);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|thread| {
                if thread == 1 {
                    met.store(true, Ordering::Relaxed);
                    // Without the words and the stack that a panic of its own writes each time.
                    resume_unwind(Box::new("on purpose"));
                }
            });
        }));
        assert_eq!(result.is_err(), met.load(Ordering::Relaxed));
        parts.add(&pool);
        parts.expect(1);
    });
}
