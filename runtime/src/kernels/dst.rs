//! Where a matrix product goes: some rows and columns of a row-major matrix.

use core::marker::PhantomData;
#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
use core::ops::Range;

/// Exclusive access to columns of a `[rows][stride]` matrix, or of some of its rows, so that threads
/// can fill disjoint parts of one matrix at the same time.
#[derive(Debug)]
pub struct Columns<'a> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: (4) it stands for a `&mut [f32]` of its columns, which may change threads.
unsafe impl Send for Columns<'_> {}

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

    /// The first `width` columns, and the others; more than there are gives all and none.
    pub fn split_at(self, width: usize) -> (Self, Self) {
        let width = width.min(self.width);
        // The second may begin behind the last number when it is empty: a pointer that
        // `row_mut` only makes an empty slice of.
        let second =
            Self { first: self.first.wrapping_add(width), width: self.width - width, ..self };
        (Self { width, ..self }, second)
    }

    /// The same columns of the first `rows` rows, and of the others; more than there are gives all
    /// and none.
    pub fn split_rows(self, rows: usize) -> (Self, Self) {
        let rows = rows.min(self.rows);
        let first = self.first.wrapping_add(rows * self.stride);
        (Self { rows, ..self }, Self { first, rows: self.rows - rows, ..self })
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
        // SAFETY: (2) (3) `row` is below `rows` and the columns lie inside the stride, so the
        // range is part of the matrix that `new` borrowed; (4) for as long as that borrow lasts
        // the columns belong to this value alone, since `split_at` and `split_rows` give each
        // number to one half, and `self` is borrowed mutably.
        unsafe {
            let first = self.first.wrapping_add(row * self.stride);
            core::slice::from_raw_parts_mut(first, self.width)
        }
    }

    /// Some columns of some rows: a pointer to the first, and the distance of rows. All of them may
    /// be read and written while `self` is borrowed.
    ///
    /// # Panics
    /// If there are no such rows or columns.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    #[inline(always)]
    pub(super) fn part_mut(
        &mut self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> (*mut f32, usize) {
        assert!(rows.start < rows.end && rows.end <= self.rows);
        assert!(columns.start < columns.end && columns.end <= self.width);
        (self.first.wrapping_add(rows.start * self.stride + columns.start), self.stride)
    }
}
