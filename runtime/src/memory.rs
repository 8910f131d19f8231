//! Memory that the caller owns, in lines of 64 bytes.

use bytemuck::{Pod, Zeroable};

/// One cache line: what workspace and cache are made of, so that every buffer is aligned.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([u8; 64]);

impl Line {
    /// Bytes of a line.
    pub const BYTES: usize = 64;
    /// All zero.
    pub const ZERO: Self = Self([0; 64]);

    /// Lines that hold this many bytes.
    pub const fn count_for(bytes: usize) -> usize {
        bytes.div_ceil(Self::BYTES)
    }
}

/// Cuts typed buffers from the front of a piece of memory.
#[derive(Debug)]
pub(crate) struct Arena<'m> {
    rest: &'m mut [Line],
}

impl<'m> Arena<'m> {
    pub(crate) fn new(memory: &'m mut [Line]) -> Self {
        Self { rest: memory }
    }

    /// `len` numbers, beginning at a line.
    ///
    /// # Panics
    /// If the memory is used up: sizes are checked before.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> &'m mut [T] {
        let lines = Line::count_for(len * size_of::<T>());
        let (taken, rest) = core::mem::take(&mut self.rest).split_at_mut(lines);
        self.rest = rest;
        &mut bytemuck::cast_slice_mut(taken)[..len]
    }
}
