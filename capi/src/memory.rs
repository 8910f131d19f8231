//! Handles and their buffers in memory that the caller gives.

use core::ptr::NonNull;

use bytemuck::Pod;
use pocketgpt_runtime::memory::Line;

use crate::boundary::array_mut;
use crate::error::Failure;

/// Bytes of a caller's memory in which, wherever it begins, this many lines fit.
pub(crate) const fn bytes_for(lines: usize) -> usize {
    lines.saturating_mul(Line::BYTES).saturating_add(Line::BYTES - 1)
}

/// Lines that hold `count` of these.
pub(crate) const fn lines_of<T>(count: usize) -> usize {
    Line::count_for(count.saturating_mul(size_of::<T>()))
}

/// What is left of a caller's memory.
pub(crate) struct Memory {
    rest: &'static mut [Line],
}

impl Memory {
    /// # Errors
    /// If it is NULL, or too small for this many lines.
    ///
    /// # Safety
    /// `pointer` is NULL or points to this many bytes, which are the caller's own and stay for as
    /// long as what is put into them is used.
    pub(crate) unsafe fn new(
        pointer: *mut core::ffi::c_void,
        bytes: usize,
        lines: usize,
    ) -> Result<Self, Failure> {
        if pointer.is_null() {
            return Err(Failure::Null("memory"));
        }
        // SAFETY: the caller's promise.
        let memory: &'static mut [u8] = unsafe { array_mut(pointer.cast(), bytes, "memory") }?;
        let skip = memory.as_ptr().align_offset(Line::BYTES).min(bytes);
        let available = (bytes - skip) / Line::BYTES;
        if available < lines {
            return Err(Failure::Memory { needed: bytes_for(lines), given: bytes });
        }
        let rest = bytemuck::cast_slice_mut(&mut memory[skip..][..available * Line::BYTES]);
        Ok(Self { rest })
    }

    /// Lines from the front.
    pub(crate) fn lines(&mut self, count: usize) -> &'static mut [Line] {
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(count);
        self.rest = rest;
        taken
    }

    /// An array of numbers.
    pub(crate) fn numbers<T: Pod>(&mut self, count: usize) -> &'static mut [T] {
        &mut bytemuck::cast_slice_mut(self.lines(lines_of::<T>(count)))[..count]
    }

    /// Puts values into the memory; they are never dropped.
    ///
    /// # Errors
    /// The first that a value has.
    pub(crate) fn values<T: Copy>(
        &mut self,
        count: usize,
        mut value: impl FnMut(usize) -> Result<T, Failure>,
    ) -> Result<&'static [T], Failure> {
        const { assert!(align_of::<T>() <= Line::BYTES) };
        let memory = self.lines(lines_of::<T>(count)).as_mut_ptr().cast::<T>();
        for i in 0..count {
            let value = value(i)?;
            // SAFETY: (2) the lines hold `count` values; (3) a line is aligned for a `T`; (4) they
            // were split off, so nothing else has them.
            unsafe { memory.add(i).write(value) };
        }
        // SAFETY: (2), (3), (4) as above, and every value has been written.
        Ok(unsafe { core::slice::from_raw_parts(memory, count) })
    }

    /// Puts a handle into the memory.
    pub(crate) fn handle<T>(&mut self, value: T) -> *mut T {
        const { assert!(align_of::<T>() <= Line::BYTES && !core::mem::needs_drop::<T>()) };
        let place = NonNull::from(self.lines(lines_of::<T>(1))).cast::<T>();
        // SAFETY: (2) the lines hold a `T`; (3) a line is aligned for it; (4) they were split off,
        // so nothing else has them.
        unsafe { place.write(value) };
        place.as_ptr()
    }
}
