//! Products of a group and six tokens in assembly. Their sums take twelve of the sixteen registers. The compiler
//! keeps the sums of other groups in the rest, of which it has too few then, and multiplies and adds in turns: that
//! takes 1.05 to 1.09 times as long on Zen 4.

use core::arch::asm;
use core::mem::offset_of;
use core::ptr::from_mut;

use super::offset::{OffsetGroup, OffsetRows};
use super::whole::WholeGroup;
use super::{Row, Unpacked};
use crate::kernels::x86_64::avx2::tiles::SIX;
use crate::kernels::x86_64::panel::PanelGroup;

/// The sums, if they are those of six tokens and not interpreted.
#[inline(always)]
pub(super) fn all<const N: usize>(acc: &mut [Row; N]) -> Option<&mut [Row; SIX]> {
    if cfg!(miri) { None } else { acc.as_mut_slice().try_into().ok() }
}

macro_rules! lines {
    ($($line:expr),* $(,)?) => { concat!($($line, "\n"),*) };
}

/// What `$token` does with the activations of each token and its two registers, for the `$step`-th 64 bytes of
/// weights in `ymm12` and `ymm13`.
macro_rules! step {
    ($token:ident $names:tt, $step:literal) => {
        lines!(
            concat!("vmovdqa ymm12, [{rows} + {weights} + 64*", $step, "]"),
            concat!("vmovdqa ymm13, [{rows} + {weights} + 64*", $step, " + 32]"),
            $token!($names, $step, 0, "ymm0", "ymm1"),
            $token!($names, $step, 1, "ymm2", "ymm3"),
            $token!($names, $step, 2, "ymm4", "ymm5"),
            $token!($names, $step, 3, "ymm6", "ymm7"),
            $token!($names, $step, 4, "ymm8", "ymm9"),
            $token!($names, $step, 5, "ymm10", "ymm11"),
        )
    };
}

/// The address of a token's activations.
macro_rules! activations {
    ($step:literal, $token:literal) => {
        concat!("[{group} + {q} + 24*", $step, " + 4*", $token, "]")
    };
}

/// Sums begin with products.
macro_rules! multiply {
    (($multiply:literal, $add:literal), $step:literal, $token:literal, $low:literal, $high:literal) => {
        lines!(
            concat!("vpbroadcastd ymm14, ", activations!($step, $token)),
            concat!($multiply, " ", $low, ", ymm12, ymm14"),
            concat!($multiply, " ", $high, ", ymm13, ymm14"),
        )
    };
}

/// Sums begin with products and offsets.
macro_rules! multiply_and_offset {
    (($multiply:literal, $add:literal), $step:literal, $token:literal, $low:literal, $high:literal) => {
        lines!(
            multiply!(($multiply, $add), $step, $token, $low, $high),
            concat!("vpbroadcastd ymm15, [{group} + {offsets} + 4*", $token, "]"),
            concat!($add, " ", $low, ", ", $low, ", ymm15"),
            concat!($add, " ", $high, ", ", $high, ", ymm15"),
        )
    };
}

/// Adds products. Both are multiplied before one is added: in turns, the loop is 1.04 times as slow on Zen 4.
macro_rules! multiply_and_add {
    (($multiply:literal, $add:literal), $step:literal, $token:literal, $low:literal, $high:literal) => {
        lines!(
            concat!("vpbroadcastd ymm14, ", activations!($step, $token)),
            concat!($multiply, " ymm15, ymm12, ymm14"),
            concat!($multiply, " ymm14, ymm13, ymm14"),
            concat!($add, " ", $low, ", ", $low, ", ymm15"),
            concat!($add, " ", $high, ", ", $high, ", ymm14"),
        )
    };
}

/// All steps of numbers in 16 bits, whose products `$add` adds.
macro_rules! sixteen_steps {
    ($add:literal) => {
        lines!(
            step!(multiply("vpmaddwd", $add), 0),
            step!(multiply_and_add("vpmaddwd", $add), 1),
            step!(multiply_and_add("vpmaddwd", $add), 2),
            step!(multiply_and_add("vpmaddwd", $add), 3),
            step!(multiply_and_add("vpmaddwd", $add), 4),
            step!(multiply_and_add("vpmaddwd", $add), 5),
            step!(multiply_and_add("vpmaddwd", $add), 6),
            step!(multiply_and_add("vpmaddwd", $add), 7),
            step!(multiply_and_add("vpmaddwd", $add), 8),
            step!(multiply_and_add("vpmaddwd", $add), 9),
            step!(multiply_and_add("vpmaddwd", $add), 10),
            step!(multiply_and_add("vpmaddwd", $add), 11),
            step!(multiply_and_add("vpmaddwd", $add), 12),
            step!(multiply_and_add("vpmaddwd", $add), 13),
            step!(multiply_and_add("vpmaddwd", $add), 14),
            step!(multiply_and_add("vpmaddwd", $add), 15),
        )
    };
}

/// What `$last` makes of each token's sums, then these times the scales, added to those of other groups.
macro_rules! scale_and_add {
    ($last:ident) => {
        lines!(
            "vmovaps ymm12, [{rows} + {block_scales}]",
            "vmovaps ymm13, [{rows} + {block_scales} + 32]",
            scale_and_add!($last, 0, "ymm0", "ymm1"),
            scale_and_add!($last, 1, "ymm2", "ymm3"),
            scale_and_add!($last, 2, "ymm4", "ymm5"),
            scale_and_add!($last, 3, "ymm6", "ymm7"),
            scale_and_add!($last, 4, "ymm8", "ymm9"),
            scale_and_add!($last, 5, "ymm10", "ymm11"),
        )
    };
    ($last:ident, $token:literal, $low:literal, $high:literal) => {
        lines!(
            $last!($token, $low, $high),
            concat!("vbroadcastss ymm14, [{group} + {scales} + 4*", $token, "]"),
            concat!("vcvtdq2ps ", $low, ", ", $low),
            concat!("vcvtdq2ps ", $high, ", ", $high),
            "vmulps ymm15, ymm12, ymm14",
            "vmulps ymm14, ymm13, ymm14",
            concat!("vfmadd213ps ", $low, ", ymm15, [{acc} + 64*", $token, "]"),
            concat!("vfmadd213ps ", $high, ", ymm14, [{acc} + 64*", $token, " + 32]"),
            concat!("vmovaps [{acc} + 64*", $token, "], ", $low),
            concat!("vmovaps [{acc} + 64*", $token, " + 32], ", $high),
        )
    };
}

/// Nothing.
macro_rules! as_is {
    ($token:literal, $low:literal, $high:literal) => {
        ""
    };
}

/// Pairs of sums in 16 bits as one in 32.
macro_rules! widened {
    ($token:literal, $low:literal, $high:literal) => {
        lines!(
            concat!("vpmaddwd ", $low, ", ", $low, ", [{ones}]"),
            concat!("vpmaddwd ", $high, ", ", $high, ", [{ones}]"),
        )
    };
}

/// Less the offsets of the rows and of the token.
macro_rules! without_offset {
    ($token:literal, $low:literal, $high:literal) => {
        lines!(
            concat!("vpbroadcastd ymm14, [{group} + {offsets} + 4*", $token, "]"),
            "vpaddd ymm15, ymm14, [{rows} + {row_offsets}]",
            "vpaddd ymm14, ymm14, [{rows} + {row_offsets} + 32]",
            concat!("vpsubd ", $low, ", ", $low, ", ymm15"),
            concat!("vpsubd ", $high, ", ", $high, ", ymm14"),
        )
    };
}

/// For registers of 64 bits, which pointers of x32 are not.
#[inline(always)]
fn address_of<T>(operand: *const T) -> u64 {
    operand.expose_provenance() as u64
}

/// What is loaded 32 bytes at a time begins at a multiple of them.
macro_rules! assert_aligned {
    ($($rows:ty: $($field:ident),*);*) => {$(
        const _: () = assert!(align_of::<$rows>().is_multiple_of(32));
        $(const _: () = assert!(offset_of!($rows, $field).is_multiple_of(32));)*
    )*};
}

assert_aligned!(
    Unpacked<8>: weights, block_scales;
    Unpacked<16>: weights, block_scales;
    OffsetRows: weights, block_scales, offsets;
    Row:
);

/// All sixteen registers are used. A macro cannot make operands, only a whole block with them.
macro_rules! assembly {
    ($($line:expr),*; $($operand:tt)*) => {
        asm!(
            $($line,)*
            $($operand)*
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack),
        )
    };
}

/// Adds the products of nibbles.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_nibbles(acc: &mut [Row; SIX], group: &PanelGroup<SIX>, rows: &Unpacked<8>) {
    #[repr(align(32))]
    struct Ones([i16; 16]);
    static ONES: Ones = Ones([1; 16]);
    // SAFETY: (1) by the target features; (2) (3) references to all that is read, of which is aligned what has to
    // be (see above); (4) the sums are borrowed exclusively.
    unsafe {
        assembly!(
            step!(multiply_and_offset("vpmaddubsw", "vpaddw"), 0),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 1),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 2),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 3),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 4),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 5),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 6),
            step!(multiply_and_add("vpmaddubsw", "vpaddw"), 7),
            scale_and_add!(widened);
            group = in(reg) address_of(group),
            rows = in(reg) address_of(rows),
            acc = in(reg) address_of(from_mut(acc)),
            ones = in(reg) address_of(&ONES.0),
            q = const offset_of!(PanelGroup<SIX>, q),
            scales = const offset_of!(PanelGroup<SIX>, scales),
            offsets = const offset_of!(PanelGroup<SIX>, offsets),
            weights = const offset_of!(Unpacked<8>, weights),
            block_scales = const offset_of!(Unpacked<8>, block_scales),
        );
    }
}

/// Adds the products of numbers in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_whole(acc: &mut [Row; SIX], group: &WholeGroup, rows: &Unpacked<16>) {
    // SAFETY: (1) by the target features; (2) (3) references to all that is read, of which is aligned what has to
    // be (see above); (4) the sums are borrowed exclusively.
    unsafe {
        assembly!(
            sixteen_steps!("vpaddd"),
            scale_and_add!(as_is);
            group = in(reg) address_of(group),
            rows = in(reg) address_of(rows),
            acc = in(reg) address_of(from_mut(acc)),
            q = const offset_of!(WholeGroup, q),
            scales = const offset_of!(WholeGroup, scales),
            weights = const offset_of!(Unpacked<16>, weights),
            block_scales = const offset_of!(Unpacked<16>, block_scales),
        );
    }
}

/// Adds the products of numbers with offsets, their sums as floats (see [`super::offset`]). Right where subnormal
/// numbers are taken as they are, for which the caller has looked.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_offset(acc: &mut [Row; SIX], group: &OffsetGroup, rows: &OffsetRows) {
    // SAFETY: (1) by the target features; (2) (3) references to all that is read, of which is aligned what has to
    // be (see above); (4) the sums are borrowed exclusively.
    unsafe {
        assembly!(
            sixteen_steps!("vaddps"),
            scale_and_add!(without_offset);
            group = in(reg) address_of(group),
            rows = in(reg) address_of(rows),
            acc = in(reg) address_of(from_mut(acc)),
            q = const offset_of!(OffsetGroup, q),
            scales = const offset_of!(OffsetGroup, scales),
            offsets = const offset_of!(OffsetGroup, offsets),
            weights = const offset_of!(OffsetRows, weights),
            block_scales = const offset_of!(OffsetRows, block_scales),
            row_offsets = const offset_of!(OffsetRows, offsets),
        );
    }
}
