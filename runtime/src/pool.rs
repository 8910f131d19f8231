//! Threads that wait for the next job: spinning first, then yielding, then parked.
//!
//! A token is some sixty jobs of 20 to 100 µs, so a sleeping thread that has to be woken for each
//! would cost more than it brings; one that only spins takes the CPU from others while it waits.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;
use std::boxed::Box;
use std::format;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::vec::Vec;

use crate::parallel::{MAX_THREADS, Parallel};
use crate::sync::thread::{self, JoinHandle, Thread};
use crate::sync::{Arc, AtomicBool, AtomicU32, Mutex, SPINS, UnsafeCell, YIELDS, mpsc, spin_loop};

type Job = *const (dyn Fn(usize) + Sync);

/// Set in [`Shared::state`] while workers may enter the current job.
const OPEN: u32 = 1 << 31;

struct Shared {
    /// Counts jobs; a worker looks at a job when it sees a new number.
    epoch: AtomicU32,
    /// [`OPEN`], and the number of workers inside the current job.
    state: AtomicU32,
    /// The current job. Written by the caller only while the state is zero.
    job: UnsafeCell<Option<Job>>,
    stop: AtomicBool,
    /// A panic of a worker, for the caller to go on with.
    panic: Mutex<Option<Box<dyn core::any::Any + Send>>>,
    /// Whether each worker is parked or about to be.
    parked: Vec<AtomicBool>,
}

// SAFETY: (4) `job` is written by the one caller (`ThreadPool::run` holds the `caller` lock) while
// `state` is zero, and read by workers that entered: between raising and lowering `state`, which
// they can raise only while it is open.
unsafe impl Sync for Shared {}
// SAFETY: (4) as above; the job it points to is `Sync`.
unsafe impl Send for Shared {}

impl Shared {
    /// Lets a worker into the current job, if it is still open.
    fn enter(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & OPEN != 0 {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }
}

/// A fixed number of threads, the calling one included.
///
/// A job must not run another one on the same pool: that would wait for itself.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    caller: Mutex<()>,
}

impl core::fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ThreadPool").field("threads", &self.threads()).finish()
    }
}

impl ThreadPool {
    /// Starts `threads - 1` threads; the calling thread is the other one.
    ///
    /// # Errors
    /// If `threads` is not 1 to [`MAX_THREADS`], or the system refuses a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        Self::with_start(threads, |_| {})
    }

    /// As [`ThreadPool::new`]; each of the other threads first calls `start` with its number, from 1
    /// on: to choose a CPU or a priority. When this returns all have done so.
    ///
    /// # Errors
    /// As [`ThreadPool::new`].
    pub fn with_start(
        threads: usize,
        start: impl Fn(usize) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        if !(1..=MAX_THREADS).contains(&threads) {
            let text = format!("{threads} threads, possible is 1 to {MAX_THREADS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let shared = Arc::new(Shared {
            epoch: AtomicU32::new(0),
            state: AtomicU32::new(0),
            job: UnsafeCell::new(None),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool =
            Self { shared, workers: Vec::with_capacity(threads - 1), caller: Mutex::new(()) };
        let start = Arc::new(start);
        let (begun, all) = mpsc::channel();
        for index in 1..threads {
            let (shared, start, begun) =
                (Arc::clone(&pool.shared), Arc::clone(&start), begun.clone());
            let worker =
                thread::Builder::new().name(format!("pocketgpt-{index}")).spawn(move || {
                    start(index);
                    // Where the caller has given up, `stop` says so.
                    let _ = begun.send(());
                    drop(begun);
                    work(&shared, index);
                })?;
            pool.workers.push(worker);
        }
        drop(begun);
        for _ in 1..threads {
            all.recv().map_err(|_| io::Error::other("a thread panicked when it started"))?;
        }
        Ok(pool)
    }

    fn wake(&self) {
        for (parked, worker) in self.shared.parked.iter().zip(&self.workers) {
            if parked.swap(false, Ordering::Release) {
                let thread: &Thread = worker.thread();
                thread.unpark();
            }
        }
    }
}

impl Parallel for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return job(0);
        }
        let one_caller_at_a_time = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: the lifetime is forgotten; below this function waits until no worker is inside
        // the job, also when the job panics here.
        let forgotten = unsafe {
            core::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(core::ptr::from_ref(
                job,
            ))
        };
        // SAFETY: (4) no worker reads it: the state is zero, so none is inside and none can enter.
        shared.job.with_mut(|job| unsafe { *job = Some(forgotten) });
        shared.state.store(OPEN, Ordering::Release);
        shared.epoch.fetch_add(1, Ordering::Release);
        self.wake();

        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        // Workers that have not come by now need not come any more.
        shared.state.fetch_and(!OPEN, Ordering::Relaxed);
        let mut wait = Backoff::default();
        while shared.state.load(Ordering::Acquire) != 0 {
            // The others are at work, so this wait is short: it never parks.
            wait.spin_or_yield();
        }
        // Taken in any case, or it would reach the caller of the next job.
        let theirs = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(one_caller_at_a_time);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.wake();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so there is nothing to pass on.
            let _ = worker.join();
        }
    }
}

/// How long something has been waited for.
#[derive(Default)]
struct Backoff {
    looked: u32,
}

impl Backoff {
    fn spin_or_yield(&mut self) {
        self.looked = self.looked.saturating_add(1);
        if self.looked < SPINS { spin_loop() } else { thread::yield_now() }
    }

    fn is_long(&self) -> bool {
        self.looked >= SPINS + YIELDS
    }
}

/// A worker's life.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut wait = Backoff::default();
        // Relaxed as long as it waits: what came before a new number is asked for below.
        while shared.epoch.load(Ordering::Relaxed) == seen {
            if !wait.is_long() {
                wait.spin_or_yield();
                continue;
            }
            let parked = &shared.parked[index - 1];
            // Either the caller sees the flag and unparks, or this reads what the caller's swap
            // left, and with it the new epoch. So both are swaps where a store would look enough.
            parked.swap(true, Ordering::Acquire);
            if shared.epoch.load(Ordering::Relaxed) == seen {
                thread::park();
            }
            // A swap, too, so that the next one above still sees what the caller's left.
            parked.swap(false, Ordering::Relaxed);
        }
        // A worker that was away may have missed jobs: only the newest counts.
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        if !shared.enter() {
            continue;
        }
        // SAFETY: (4) inside the job: it was written before the state was opened and stays until
        // the state is lowered below.
        let result = shared.job.with(|job| unsafe {
            let job = (*job).expect("an open job is there");
            catch_unwind(AssertUnwindSafe(|| (*job)(index)))
        });
        if let Err(panic) = result {
            *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        shared.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::sync::atomic::{AtomicU64, AtomicUsize};

    use super::*;
    use crate::parallel::scatter;

    /// A job that every thread comes to: it waits for them.
    fn meet(pool: &ThreadPool, work: impl Fn(usize) + Sync) {
        let arrived = AtomicUsize::new(0);
        pool.run(&|thread| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < pool.threads() {
                thread::yield_now();
            }
            work(thread);
        });
    }

    #[test]
    fn every_thread_but_the_first_starts() {
        let started = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&started);
        let pool = ThreadPool::with_start(4, move |index| seen.lock().unwrap().push(index));
        let pool = pool.unwrap();
        started.lock().unwrap().sort_unstable();
        assert_eq!(*started.lock().unwrap(), [1, 2, 3]);
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert!(count.into_inner() >= 1);
        assert!(ThreadPool::with_start(2, |_| panic!("on purpose")).is_err());
    }

    #[test]
    fn every_thread_can_take_part_once_in_each_job() {
        for threads in [1, 2, 3, 7] {
            let pool = ThreadPool::new(threads).unwrap();
            let sum = AtomicU64::new(0);
            for i in 0..200 {
                if i == 100 {
                    thread::sleep(std::time::Duration::from_millis(30)); // They park.
                }
                meet(&pool, |thread| {
                    sum.fetch_add(1 << (8 * thread), Ordering::Relaxed);
                });
            }
            let expected = (0..threads).map(|t| 200 << (8 * t)).sum();
            assert_eq!(sum.load(Ordering::Relaxed), expected);
        }
    }

    #[test]
    fn no_job_is_lost_when_threads_come_late() {
        // Far more threads than CPUs, and jobs too short for most of them to arrive.
        let pool = ThreadPool::new(16).unwrap();
        let mut counts = [0u32; 16];
        for _ in 0..5000 {
            scatter(&pool, counts.iter_mut(), |count| *count += 1);
        }
        assert_eq!(counts, [5000; 16]);
    }

    /// Short enough to be run under Miri with many schedules.
    #[test]
    fn a_few_jobs_between_spinning_and_parking() {
        let pool = ThreadPool::new(3).unwrap();
        let mut parts = [0u32; 3];
        for i in 0..4 {
            scatter(&pool, parts.iter_mut(), |part| *part += 1);
            // They park now and then, at once or in the middle of the next job.
            (0..3 * i).for_each(|_| thread::yield_now());
        }
        assert_eq!(parts, [4; 3]);
        let result = catch_unwind(AssertUnwindSafe(|| pool.run(&|_| panic!("on purpose"))));
        assert!(result.is_err());
        scatter(&pool, parts.iter_mut(), |part| *part += 1);
        assert_eq!(parts, [5; 3]);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3).unwrap();
        // One of the threads, or (3) all of them.
        for who in 0..=3 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                meet(&pool, |thread| assert!(thread != who && who < 3, "on purpose"));
            }));
            assert!(result.is_err());
        }
        let count = AtomicU64::new(0);
        meet(&pool, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn rejects_impossible_numbers_of_threads() {
        assert!(ThreadPool::new(0).is_err());
        assert!(ThreadPool::new(MAX_THREADS + 1).is_err());
    }
}
