//! How fast this machine reads memory and multiplies: what a model's speed is measured against.
//!
//! A decoded token reads every weight once, so bytes per second bound it; a prompt is bound by
//! multiply-adds per second (the roofline model: Williams, Waterman, Patterson, 2009). Both are
//! measured with the threads and the instruction set that are to run the model, at their best: see
//! [`crate::kernels::peak`]. Other programs take their share of either, so measure often, in
//! turn with what is compared, and keep the largest.
//!
//! ```no_run
//! use std::time::Duration;
//! use pocketgpt_runtime::kernels::Kernels;
//! use pocketgpt_runtime::pool::ThreadPool;
//! use pocketgpt_runtime::roofline::{Arithmetic, Memory, multiply_adds_per_second, read_bytes_per_second};
//!
//! let (kernels, pool) = (Kernels::best(), ThreadPool::new(2)?);
//! let (memory, time) = (Memory::new(256 << 20)?, Duration::from_millis(50));
//! let bytes = read_bytes_per_second(kernels, &pool, memory.lines(), time);
//! let macs = multiply_adds_per_second(kernels, &pool, Arithmetic::Int8, time);
//! println!("{:.1} GB/s, {:.1} G multiply-adds/s", bytes / 1e9, macs / 1e9);
//! # Ok::<(), std::io::Error>(())
//! ```

use core::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use crate::kernels::Kernels;
use crate::kernels::peak::Peak;
use crate::memory::Line;
use crate::parallel::{Parallel, scatter, share};

/// Memory to read from: in large pages where the system has them, so that finding pages takes no
/// part of the time.
#[derive(Debug)]
pub struct Memory {
    map: memmap2::MmapMut,
}

impl Memory {
    /// Takes this many bytes, rounded down to lines, from the system and writes to them, as pages
    /// that nobody has written to are all the same page.
    ///
    /// # Errors
    /// If the system does not have them, or they are less than a line.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if bytes < Line::BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "less than a line of memory"));
        }
        let mut map = memmap2::MmapMut::map_anon(bytes / Line::BYTES * Line::BYTES)?;
        // A wish: without large pages the figures are those that small ones give.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        map.fill(1);
        Ok(Self { map })
    }

    /// The memory. Part of it is read where a smaller model is to be compared with.
    pub fn lines(&self) -> &[Line] {
        bytemuck::cast_slice(&self.map)
    }
}

/// Numbers to multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Bytes, added in 32 bits: q8, q4 and q3 weights.
    Int8,
    /// f32: f32 and f16 weights.
    F32,
}

/// How many bytes a second the threads of `par` read when they read `lines` again and again, each
/// thread its share, for at least some `time`.
///
/// Lines that fit the caches are read from there: give as many as the model has that is compared.
///
/// # Panics
/// If there are no lines.
pub fn read_bytes_per_second(
    kernels: Kernels,
    par: &dyn Parallel,
    lines: &[Line],
    time: Duration,
) -> f64 {
    assert!(!lines.is_empty(), "there is nothing to read");
    let (peak, threads) = (kernels.peak(), par.threads());
    let passes_per_second = repeat(time, |passes| {
        let shares = (0..threads).map(|i| &lines[share(lines.len(), threads, i)]);
        scatter(par, shares, |share| {
            for _ in 0..passes {
                black_box(peak.read(black_box(share)));
            }
        });
    });
    passes_per_second * size_of_val(lines) as f64
}

/// How many multiply-adds a second the threads of `par` do together, for at least some `time`.
pub fn multiply_adds_per_second(
    kernels: Kernels,
    par: &dyn Parallel,
    arithmetic: Arithmetic,
    time: Duration,
) -> f64 {
    /// So few that a clock's tick is nothing beside them, and so many that calls are.
    const ROUNDS: u32 = 1000;
    let (peak, threads) = (kernels.peak(), par.threads());
    let multiply = match arithmetic {
        Arithmetic::Int8 => Peak::multiply_i8,
        Arithmetic::F32 => Peak::multiply_f32,
    };
    let passes_per_second = repeat(time, |passes| {
        scatter(par, 0..threads, |_| {
            for _ in 0..passes {
                black_box(multiply(&peak, black_box(ROUNDS)));
            }
        });
    });
    passes_per_second * threads as f64 * multiply(&peak, ROUNDS) as f64
}

/// Calls `work` with growing numbers of passes until they take `time`; passes per second of the
/// last call.
fn repeat(time: Duration, work: impl Fn(u64)) -> f64 {
    // Brings threads, caches and clocks up.
    work(1);
    let mut passes = 1;
    loop {
        let start = Instant::now();
        work(passes);
        let seconds = start.elapsed().as_secs_f64();
        let missing = time.as_secs_f64() / seconds.max(1e-9);
        // A little less will do: most clocks are not that even.
        if missing < 1.1 {
            return passes as f64 / seconds;
        }
        passes = (passes as f64 * missing.min(100.0)).ceil() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::Serial;
    use crate::pool::ThreadPool;

    const TIME: Duration = Duration::from_millis(2);

    #[test]
    fn memory_is_whole_lines() {
        assert_eq!(Memory::new(1000).unwrap().lines().len(), 15);
        assert!(Memory::new(63).is_err());
    }

    #[test]
    fn work_takes_the_time_asked_for() {
        let start = Instant::now();
        let pass = Duration::from_millis(1);
        let speed = repeat(20 * pass, |passes| std::thread::sleep(pass * passes as u32));
        assert!(start.elapsed() > 19 * pass);
        // Sleeping takes at least as long as it is asked to.
        assert!(speed > 0.0 && speed <= 1000.0, "{speed}");
    }

    #[test]
    fn speeds_are_possible_ones() {
        let memory = Memory::new(1 << 20).unwrap();
        let pool = ThreadPool::new(2).unwrap();
        let kernels = Kernels::best();
        for par in [&Serial as &dyn Parallel, &pool] {
            let bytes = read_bytes_per_second(kernels, par, memory.lines(), TIME);
            assert!((1e7..1e13).contains(&bytes), "{bytes}");
            for arithmetic in [Arithmetic::Int8, Arithmetic::F32] {
                let macs = multiply_adds_per_second(kernels, par, arithmetic, TIME);
                assert!((1e6..1e14).contains(&macs), "{macs}");
            }
        }
    }
}
