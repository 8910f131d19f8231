//! The tile registers: how they are laid out, and what is done with them.
//!
//! The compiler has no stable intrinsics for them. It does not use them itself, nor does what it calls in
//! between (to copy or to clear memory), so that they stay configured.

use core::arch::asm;

use crate::quant::tile::{GROUP, ROWS};

/// Rows of a register.
pub(super) const TILE: usize = 16;

/// Groups whose products leave the registers together: each change between tiles and vectors takes time.
pub(super) const TOGETHER: usize = 4;

/// A group's weights as `tdpbssd` takes them: four inputs of sixteen rows, eight times.
pub(super) type Unpacked = [[i8; 4 * ROWS]; GROUP / 4];

/// Tokens of a panel.
pub(super) const TOKENS: usize = 64;

/// Activations of one group.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Activations {
    pub(super) q: [[i8; GROUP]; TOKENS],
    pub(super) scales: [f32; TOKENS],
}

/// A group's products: sixteen tokens by sixteen rows of weights.
pub(super) type Products = [[i32; ROWS]; TILE];

/// The registers, while they are in use. Who no longer uses them should say so: the system saves what is
/// in them at each switch of threads otherwise.
pub(super) struct Tiles(());

/// What `ldtilecfg` reads (Intel, Software Developer's Manual, volume 1, chapter 18).
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Config>() == 64);

/// Registers 0 to 3 hold products, 4 and 5 activations, 6 and 7 weights.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes_per_row: [64, 64, 64, 64, 32, 32, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0],
};

impl Tiles {
    /// # Safety
    /// 1. The CPU has AMX, and the system lets this process use it.
    #[inline(always)]
    pub(super) unsafe fn configure() -> Self {
        // SAFETY: (1) see above; (2) 64 bytes are read, which are a configuration.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &CONFIG, options(readonly, nostack, preserves_flags));
        }
        Self(())
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: (1) there is one where the registers were configured.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

/// The products of up to [`TOGETHER`] groups' weights with the activations of sixteen tokens from `first`
/// on.
///
/// # Safety
/// 1. The registers are configured.
///
/// # Panics
/// If there are fewer tokens, or not as many groups of weights as of activations, or more than fit.
#[inline(always)]
pub(super) unsafe fn multiply(
    activations: &[Activations],
    first: usize,
    weights: &[Unpacked],
    out: &mut [Products; TOGETHER],
) {
    const NEXT: usize = size_of::<Activations>();
    let (a_row, row) = (size_of::<[i8; GROUP]>(), size_of::<[i32; ROWS]>());
    assert!(first + TILE <= TOKENS);
    assert!(activations.len() == weights.len() && weights.len() <= TOGETHER);
    if weights.len() < TOGETHER {
        for ((a, b), out) in activations.iter().zip(weights).zip(out) {
            // SAFETY: (1) as above; (2) (3) (4) sixteen rows of 32 bytes, eight of 64, and sixteen of
            // 64 that are borrowed exclusively.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tileloadd tmm4, [{a} + {a_row}]",
                    "tileloadd tmm6, [{b} + {row}]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tilestored [{c} + {row}], tmm0",
                    a = in(reg) a.q[first..].as_ptr(),
                    b = in(reg) b,
                    c = in(reg) out,
                    a_row = in(reg) a_row,
                    row = in(reg) row,
                    out("tmm0") _,
                    out("tmm4") _,
                    out("tmm6") _,
                    options(nostack, preserves_flags),
                );
            }
        }
        return;
    }
    // SAFETY: (1) as above; (2) (3) (4) of each of four groups as above, one behind the other: activations
    // begin with `q`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{a} + {a_row}]",
            "tileloadd tmm6, [{b} + {row}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {a_row} + {next}]",
            "tileloadd tmm7, [{b} + {row} + 512]",
            "tdpbssd tmm1, tmm5, tmm7",
            "tileloadd tmm4, [{a} + {a_row} + 2*{next}]",
            "tileloadd tmm6, [{b} + {row} + 1024]",
            "tdpbssd tmm2, tmm4, tmm6",
            "tileloadd tmm5, [{a} + {a_row} + 3*{next}]",
            "tileloadd tmm7, [{b} + {row} + 1536]",
            "tdpbssd tmm3, tmm5, tmm7",
            "tilestored [{c} + {row}], tmm0",
            "tilestored [{c} + {row} + 1024], tmm1",
            "tilestored [{c} + {row} + 2048], tmm2",
            "tilestored [{c} + {row} + 3072], tmm3",
            a = in(reg) activations.as_ptr().cast::<[i8; GROUP]>().wrapping_add(first),
            b = in(reg) weights.as_ptr(),
            c = in(reg) out.as_mut_ptr(),
            a_row = in(reg) a_row,
            row = in(reg) row,
            next = const NEXT,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack, preserves_flags),
        );
    }
}
