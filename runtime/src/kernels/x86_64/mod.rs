//! Kernels for x86-64.

use core::arch::x86_64::*;

/// Runs `$function::<$encoding, N>`, where `N` is how many groups' scales are prepared before their
/// weights are read: all of a row, up to 8192 inputs.
///
/// Reading scales and weights in turns, two streams a few hundred bytes apart, keeps the hardware
/// from fetching either ahead: on Zen 4 a matrix in memory is read at 10 to 18 GB/s that way, at
/// 20 GB/s where a row is read in two pieces, and at 29 GB/s, as fast as by plain loads, when all
/// scales of a record are read first. The smaller sizes are there because the scratch is zeroed.
macro_rules! with_scratch_for {
    ($groups:expr, $function:ident::<$encoding:ident>($($argument:expr),*)) => {
        match $groups {
            ..=32 => $function::<$encoding, 32>($($argument),*),
            ..=128 => $function::<$encoding, 128>($($argument),*),
            _ => $function::<$encoding, 256>($($argument),*),
        }
    };
}

pub(super) mod ahead;
// Not for x32, whose pointers are no registers of 64 bits.
#[cfg(all(feature = "std", target_pointer_width = "64"))]
pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512vnni;
mod panel;

/// Asks for all lines of some bytes, if they begin with a line; else perhaps not for the last one.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        prefetch_line(line.as_ptr());
    }
}

/// Asks for a line in the first cache. There need not be anything.
#[inline(always)]
fn prefetch_line(address: *const u8) {
    #[cfg(test)]
    ahead::tests::note(address);
    // SAFETY: (1) part of every x86-64; (2) prefetching does not access memory.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// In the second cache.
#[inline(always)]
fn prefetch_line_to_second(address: *const u8) {
    #[cfg(test)]
    ahead::tests::note_second(address);
    // SAFETY: (1) part of every x86-64; (2) prefetching does not access memory.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) }
}

/// Queries of one head, how many there are, and where their scores go.
pub(super) struct Queries<'a> {
    /// `[n][hd]`
    queries: &'a [i8],
    /// `[n]`
    scales: &'a [f32],
    /// `[n][slots]`
    scores: &'a mut [f32],
}

impl<'a> Queries<'a> {
    /// Splits off the largest block of queries of which the sizes, in decreasing order, have one.
    #[inline(always)]
    fn take_block(&mut self, sizes: &[usize]) -> Option<Queries<'a>> {
        let left = self.scales.len();
        let n = sizes.iter().copied().find(|&n| n <= left)?;
        let (hd, slots) = (self.queries.len() / left, self.scores.len() / left);
        let scores = core::mem::take(&mut self.scores).split_at_mut(n * slots);
        self.scores = scores.1;
        Some(Queries {
            queries: self.queries.split_off(..n * hd)?,
            scales: self.scales.split_off(..n)?,
            scores: scores.0,
        })
    }
}

/// Four rows of eight 32-bit numbers into columns: columns 0 and 4 in the halves of the first
/// register, 1 and 5 in the second, and so on.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_4x8(r: [__m256i; 4]) -> [__m256i; 4] {
    let (a, b) = (_mm256_unpacklo_epi32(r[0], r[1]), _mm256_unpackhi_epi32(r[0], r[1]));
    let (c, d) = (_mm256_unpacklo_epi32(r[2], r[3]), _mm256_unpackhi_epi32(r[2], r[3]));
    [
        _mm256_unpacklo_epi64(a, c),
        _mm256_unpackhi_epi64(a, c),
        _mm256_unpacklo_epi64(b, d),
        _mm256_unpackhi_epi64(b, d),
    ]
}

/// Eight rows of eight 32-bit numbers into columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(r: [__m256i; 8]) -> [__m256i; 8] {
    let a = transpose_4x8([r[0], r[1], r[2], r[3]]);
    let b = transpose_4x8([r[4], r[5], r[6], r[7]]);
    [
        _mm256_permute2x128_si256::<0x20>(a[0], b[0]),
        _mm256_permute2x128_si256::<0x20>(a[1], b[1]),
        _mm256_permute2x128_si256::<0x20>(a[2], b[2]),
        _mm256_permute2x128_si256::<0x20>(a[3], b[3]),
        _mm256_permute2x128_si256::<0x31>(a[0], b[0]),
        _mm256_permute2x128_si256::<0x31>(a[1], b[1]),
        _mm256_permute2x128_si256::<0x31>(a[2], b[2]),
        _mm256_permute2x128_si256::<0x31>(a[3], b[3]),
    ]
}

/// The last three steps of [`crate::math::sum_tree`]: from eight lanes on.
#[inline]
#[target_feature(enable = "avx")]
fn halves_sum(x: __m256) -> f32 {
    let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
}

/// The last three steps of [`crate::math::max_tree`].
#[inline]
#[target_feature(enable = "avx")]
fn halves_max(x: __m256) -> f32 {
    let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
}
