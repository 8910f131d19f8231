//! Where a matrix product goes: some columns of a row-major matrix.

use core::marker::PhantomData;

/// Exclusive access to columns of a `[rows][stride]` matrix, so that threads can fill disjoint
/// columns of one matrix at the same time.
#[derive(Debug)]
pub struct Columns<'a> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

impl<'a> Columns<'a> {
    /// All columns of a matrix.
    ///
    /// # Panics
    /// If the length is not a multiple of `stride`.
    pub fn new(matrix: &'a mut [f32], stride: usize) -> Self {
        assert!(matrix.len().is_multiple_of(stride));
        let rows = matrix.len() / stride;
        Self { first: matrix.as_mut_ptr(), stride, rows, width: stride, matrix: PhantomData }
    }

    /// `width` columns beginning at `first`.
    ///
    /// # Safety
    /// 1. For every `r < rows`, `first + r * stride .. + width` lies in one allocation of
    ///    initialized numbers that lives for `'a`.
    /// 2. Nothing else reads or writes these numbers during `'a`.
    pub(crate) unsafe fn from_raw(
        first: *mut f32,
        stride: usize,
        rows: usize,
        width: usize,
    ) -> Self {
        Self { first, stride, rows, width, matrix: PhantomData }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns that may be written.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The columns of one row.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline(always)]
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows);
        // SAFETY: (2) (3) `row` is below `rows`, so by obligation 1 of the constructor the range
        // is inside initialized memory; (4) by its obligation 2, and since `self` is borrowed
        // mutably, nothing else refers to it.
        unsafe { core::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.width) }
    }

    /// First column of a row, for kernels that store whole registers.
    ///
    /// # Safety
    /// 1. `row < self.rows()`.
    #[inline(always)]
    pub(crate) unsafe fn row_ptr(&mut self, row: usize) -> *mut f32 {
        debug_assert!(row < self.rows);
        // SAFETY: (2) inside the matrix by obligation 1.
        unsafe { self.first.add(row * self.stride) }
    }
}
