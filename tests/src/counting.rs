//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, counting what every thread but the program's first one asks for: that one
/// belongs to the test harness, which prints a line now and then. A test program makes it its own with
/// `#[global_allocator]`, and does what is to be counted in [`apart`].
pub struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
/// Threads that have asked for memory.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Number of this thread in the order of their first allocations, from 1 on.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    let first = NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(1 + THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get() == 1
    });
    if !first {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs a test on a thread of its own.
pub fn apart(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap_or_else(|panic| resume_unwind(panic));
}

/// Allocations so far.
pub fn allocations_so_far() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Allocations while `f` runs, on all threads.
pub fn allocations(f: impl FnOnce()) -> usize {
    let before = allocations_so_far();
    f();
    allocations_so_far() - before
}

/// Waits until nobody asks for memory any more: the threads of a conversion end a little after it, and
/// allocate while they do.
pub fn settle() {
    loop {
        let before = allocations_so_far();
        std::thread::sleep(std::time::Duration::from_millis(200));
        if allocations_so_far() == before {
            return;
        }
    }
}
