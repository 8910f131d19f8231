//! How fast the machine reads and multiplies, measured in turn with the models.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::parallel::Parallel;
pub use pocketgpt_runtime::roofline::Arithmetic;
use pocketgpt_runtime::roofline::{Memory, multiply_adds_per_second, read_bytes_per_second};

use crate::{machine, units};

/// Memory that is read, unless the caches are larger or there is less.
const MEMORY_BYTES: u64 = 256 << 20;
/// The best try counts, as other programs only ever make one slower. A try is short, so that some
/// are not interrupted on a busy machine either.
const TRY: Duration = Duration::from_millis(3);
const MIN_TRIES: usize = 3;
/// Tries go on for as long.
const TIME: Duration = Duration::from_millis(40);

/// Measures the limits.
pub struct Limits {
    memory: Memory,
    samples: Samples,
}

/// What [`Limits::sample`] has measured so far, per second.
#[derive(Default)]
struct Samples {
    memory_bytes: Vec<f64>,
    int8_macs: Vec<f64>,
    f32_macs: Vec<f64>,
}

/// What the machine can do, per second.
pub struct Peaks {
    /// From memory, in a buffer of `memory_buffer_bytes`.
    pub memory_bytes: f64,
    pub memory_buffer_bytes: usize,
    pub int8_macs: f64,
    pub f32_macs: f64,
}

impl Limits {
    /// Takes memory to read: four times what the caches hold, and at most a quarter of what is left.
    pub fn new() -> Result<Self> {
        let wanted = MEMORY_BYTES.max(4 * machine::last_level_cache_bytes().unwrap_or(0));
        let bytes = wanted.min(machine::available_bytes().map_or(u64::MAX, |bytes| bytes / 4));
        let memory = Memory::new(bytes as usize).map_err(|error| {
            let needed = units::bytes(bytes);
            anyhow!("measuring how fast memory is read takes {needed}: {error}; end other programs")
        })?;
        Ok(Self { memory, samples: Samples::default() })
    }

    /// Measures all that does not depend on a model.
    pub fn sample(&mut self, kernels: Kernels, par: &dyn Parallel) {
        let memory_bytes = self.read_bytes_per_second(kernels, par, u64::MAX);
        let int8_macs = macs_per_second(kernels, par, Arithmetic::Int8);
        let f32_macs = macs_per_second(kernels, par, Arithmetic::F32);
        self.samples.memory_bytes.push(memory_bytes);
        self.samples.int8_macs.push(int8_macs);
        self.samples.f32_macs.push(f32_macs);
    }

    /// Medians of the samples.
    ///
    /// # Panics
    /// If there are none.
    pub fn peaks(&mut self) -> Peaks {
        let Samples { memory_bytes, int8_macs, f32_macs } = &mut self.samples;
        Peaks {
            memory_bytes: units::median(memory_bytes),
            memory_buffer_bytes: size_of_val(self.memory.lines()),
            int8_macs: units::median(int8_macs),
            f32_macs: units::median(f32_macs),
        }
    }

    /// How fast as many bytes are read again and again as the weights of a model have: as much of
    /// them stays in the caches. Of a model larger than the memory here it is the memory.
    pub fn read_bytes_per_second(
        &self,
        kernels: Kernels,
        par: &dyn Parallel,
        weight_bytes: u64,
    ) -> f64 {
        let lines = self.lines_for(weight_bytes);
        best(|| read_bytes_per_second(kernels, par, lines, TRY))
    }

    /// How many bytes that are.
    pub fn buffer_bytes(&self, weight_bytes: u64) -> usize {
        size_of_val(self.lines_for(weight_bytes))
    }

    fn lines_for(&self, weight_bytes: u64) -> &[Line] {
        let lines = self.memory.lines();
        let count = (weight_bytes / Line::BYTES as u64).clamp(1, lines.len() as u64);
        &lines[..count as usize]
    }
}

/// How many multiply-adds a second the threads can do.
pub fn macs_per_second(kernels: Kernels, par: &dyn Parallel, arithmetic: Arithmetic) -> f64 {
    best(|| multiply_adds_per_second(kernels, par, arithmetic, TRY))
}

fn best(measure: impl Fn() -> f64) -> f64 {
    let start = Instant::now();
    let mut best = 0.0f64;
    for tries in 0.. {
        if tries >= MIN_TRIES && start.elapsed() >= TIME {
            break;
        }
        best = best.max(measure());
    }
    best
}
