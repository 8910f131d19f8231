//! q8 for CPUs that add floats on ports of their own: sums of integers as sums of floats.
//!
//! An integer below 2²³, its bits taken for a float, is a subnormal number: that many times 2⁻¹⁴⁹. A sum of such
//! floats is exact, and its bits are the sum of the integers. So weights and activations are taken with 128 more,
//! which makes all products positive and their sums at most 32 · 255 · 255 (below 2²¹), and
//!
//! `Σ w·q = Σ (w + 128)·(q + 128) − 128 · Σ (w + 128) − 128 · Σ (q + 128) + 32 · 128²`
//!
//! takes two instructions for what is to be subtracted. On Zen 4 integers are added on any of four ports, among
//! them the two that multiply, which then cannot: in eight cycles there are 13 multiplications and as many additions.
//! Floats are added on the other two ports: there are 16.

use core::arch::asm;
use core::arch::x86_64::*;

use super::{Row, Step, Unpack, six, store};
use crate::kernels::QuantLhs;
use crate::kernels::generic::Lanes;
use crate::kernels::x86_64::ahead::{self, Answer};
use crate::kernels::x86_64::avx2::matmul::{Group, Q8};
use crate::kernels::x86_64::avx2::tiles::{SIX, add_scaled, add_wide_products, rows, store_tokens};
use crate::kernels::x86_64::avx2::{Avx2, load};
use crate::kernels::x86_64::{panel, transpose_8x8};
use crate::quant::tile::{GROUP, ROWS};

/// Whether this CPU is faster this way, and adds subnormal numbers as they are.
pub(in crate::kernels::x86_64::avx2) fn is_better() -> bool {
    static ANSWER: Answer = Answer::unknown();
    #[cfg(test)]
    if let Some(better) = tests::DECIDED.get() {
        return better && keeps_subnormals();
    }
    ANSWER.get(|| u8::from(is_zen_4_here())) != 0 && keeps_subnormals()
}

#[cold]
fn is_zen_4_here() -> bool {
    !cfg!(miri)
        && ahead::vendor(&__cpuid(0)).as_flattened() == ahead::AMD
        && is_zen_4(__cpuid(1).eax)
}

/// Others are untried. Zen 3, of the same family, multiplies and adds floats on one port in common.
const fn is_zen_4(signature: u32) -> bool {
    let model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
    ahead::family(signature) == 0x19 && matches!(model, 0x10..=0x1f | 0x60..=0xaf)
}

/// Whether this thread takes subnormal numbers as they are.
fn keeps_subnormals() -> bool {
    if cfg!(miri) {
        return true;
    }
    let mut control = 0u32;
    // Of 64 bits, which pointers of x32 are not.
    let address = (&raw mut control).expose_provenance() as u64;
    // SAFETY: (1) part of every x86-64; (3) (4) four bytes are written, which are borrowed exclusively.
    unsafe { asm!("stmxcsr [{}]", in(reg) address, options(nostack, preserves_flags)) }
    are_kept(control)
}

/// Whether that is what the control register says, and no trap is set for them. It is so where a thread begins; a
/// program may decide otherwise (Intel, Software Developer's Manual, volume 1, section 10.2.3).
const fn are_kept(control: u32) -> bool {
    const DENORMALS_ARE_ZEROS: u32 = 1 << 6;
    const FLUSH_TO_ZERO: u32 = 1 << 15;
    const DENORMAL_MASK: u32 = 1 << 8;
    const UNDERFLOW_MASK: u32 = 1 << 11;
    const MASKS: u32 = DENORMAL_MASK | UNDERFLOW_MASK;
    control & (DENORMALS_ARE_ZEROS | FLUSH_TO_ZERO | MASKS) == MASKS
}

/// q8 with 128 more.
pub(in crate::kernels::x86_64::avx2) struct OffsetQ8;

/// A group of sixteen rows.
#[repr(C, align(64))]
pub(in crate::kernels::x86_64::avx2) struct OffsetRows {
    pub(super) weights: [Step; 16],
    pub(super) block_scales: [f32; ROWS],
    /// 128 times the sum of a row.
    pub(super) offsets: [i32; ROWS],
}

/// Activations of a group.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in crate::kernels::x86_64::avx2) struct OffsetGroup {
    /// In the order of [`super::whole::WholeGroup`].
    pub(super) q: [[[i16; 2]; SIX]; 16],
    pub(super) scales: [f32; SIX],
    /// 128 times the sum of a token, less 32 · 128².
    pub(super) offsets: [i32; SIX],
}

impl Unpack for OffsetQ8 {
    type Stored = Q8;
    type Rows = OffsetRows;
    const ZERO_ROWS: OffsetRows =
        OffsetRows { weights: [[[0; 32]; 2]; 16], block_scales: [0.0; ROWS], offsets: [0; ROWS] };
    type Six = OffsetGroup;
    const ZERO_SIX: OffsetGroup =
        OffsetGroup { q: [[[0; 2]; SIX]; 16], scales: [0.0; SIX], offsets: [0; SIX] };

    #[inline(always)]
    fn unpack(weights: &[u8], block_scales: &[u8; ROWS], out: &mut OffsetRows) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); 2];
            let weights = weights.as_chunks().0.as_chunks::<2>().0;
            for (w, [even, odd]) in weights.iter().zip(out.weights.as_chunks_mut().0) {
                let [low, high] = [with_offset(load(&w[0])), with_offset(load(&w[1]))];
                store([low[0], high[0]], even);
                store([low[1], high[1]], odd);
                sums = [added(sums[0], low), added(sums[1], high)];
            }
            store([times_128(sums[0]), times_128(sums[1])], bytemuck::cast_mut(&mut out.offsets));
            Avx2(()).store(Q8::block_scales(block_scales), &mut out.block_scales);
        }
    }

    #[inline(always)]
    fn pack_six(lhs: &QuantLhs<'_>, t: usize, group: usize, out: &mut OffsetGroup) {
        panel::set_scales(lhs, t, group, &mut out.scales);
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            let mut sums = _mm256_setzero_si256();
            let columns = transpose_8x8(rows::<SIX>(lhs, t, group));
            for (column, [even, odd]) in columns.into_iter().zip(out.q.as_chunks_mut().0) {
                let halves = with_offset(column);
                store_tokens(halves[0], even);
                store_tokens(halves[1], odd);
                sums = added(sums, halves);
            }
            let constant = _mm256_set1_epi32(GROUP as i32 * 128 * 128);
            store_tokens(_mm256_sub_epi32(times_128(sums), constant), &mut out.offsets);
        }
    }

    #[inline(always)]
    fn add_group<const N: usize>(acc: &mut [Row; N], group: &OffsetGroup, rows: &OffsetRows) {
        // SAFETY: (1) called from functions with these target features only.
        unsafe {
            if let Some(acc) = six::all(acc) {
                return six::add_offset(acc, group, rows);
            }
            let mut dots = [[_mm256_setzero_si256(); 2]; N];
            for (w, q) in rows.weights.iter().zip(&group.q) {
                add_wide_products(&mut dots, [load(&w[0]), load(&w[1])], q);
            }
            let of_rows: &Step = bytemuck::cast_ref(&rows.offsets);
            for (dot, &of_token) in dots.iter_mut().zip(&group.offsets) {
                for (dot, of_rows) in dot.iter_mut().zip(of_rows) {
                    let offset = _mm256_add_epi32(load(of_rows), _mm256_set1_epi32(of_token));
                    *dot = _mm256_sub_epi32(*dot, offset);
                }
            }
            add_scaled(acc, dots, Avx2(()).load(&rows.block_scales), &group.scales);
        }
    }
}

/// The first and the third of each four bytes with 128 more, in 16 bits, then the others.
#[inline]
#[target_feature(enable = "avx2")]
fn with_offset(x: __m256i) -> [__m256i; 2] {
    let x = _mm256_xor_si256(x, _mm256_set1_epi8(-128));
    [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn added(sums: __m256i, [even, odd]: [__m256i; 2]) -> __m256i {
    _mm256_add_epi16(sums, _mm256_add_epi16(even, odd))
}

/// 128 times the sums of neighbours, each at most 16 · 255.
#[inline]
#[target_feature(enable = "avx2")]
fn times_128(sums: __m256i) -> __m256i {
    _mm256_madd_epi16(sums, _mm256_set1_epi16(128))
}

#[cfg(test)]
pub(in crate::kernels) mod tests {
    use core::cell::Cell;

    use super::*;

    std::thread_local! {
        /// What this thread takes for the answer, whatever the CPU is.
        pub(super) static DECIDED: Cell<Option<bool>> = const { Cell::new(None) };
    }

    /// Runs a test as on a CPU that is, or is not, better at adding floats.
    pub(in crate::kernels) fn decided(is_better: bool, test: impl FnOnce()) {
        ahead::tests::with_answer(&DECIDED, is_better, test);
    }

    #[test]
    fn zen_4_is_told_from_its_family() {
        // Genoa, Raphael, Phoenix, Bergamo.
        let zen_4 = [0x00a1_0f11, 0x00a6_0f12, 0x00a7_0f41, 0x00aa_0f01];
        // Milan, Vermeer, Rembrandt, Cezanne; Zen 5, Zen 2, Sapphire Rapids.
        let others = [
            0x00a0_0f11,
            0x00a2_0f10,
            0x00a4_0f41,
            0x00a5_0f00,
            0x00b0_0f21,
            0x0083_0f10,
            0x0008_06f8,
        ];
        assert!(zen_4.iter().all(|&signature| is_zen_4(signature)));
        assert!(!others.iter().any(|&signature| is_zen_4(signature)));
    }

    #[test]
    fn who_drops_subnormal_numbers_is_noticed() {
        const AT_FIRST: u32 = 0x1f80;
        assert!(keeps_subnormals());
        assert!(are_kept(AT_FIRST));
        for bit in [6, 8, 11, 15] {
            assert!(!are_kept(AT_FIRST ^ 1 << bit), "{bit}");
        }
    }
}
