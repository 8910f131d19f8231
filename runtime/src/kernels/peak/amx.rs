//! x86-64 with AMX.

use core::arch::asm;

use super::{Table, x86_64};

pub(super) static TABLE: Table =
    Table { multiply_i8: dpbssd, instruction_i8: "tdpbssd tmm", ..x86_64::AVX512VNNI };

/// A register: sixteen rows of 64 bytes, or of sixteen sums.
#[repr(C, align(64))]
struct Register([[u32; 16]; 16]);

/// What `ldtilecfg` reads: all registers as large as they can be.
#[repr(C, align(64))]
struct Config([u8; 64]);

static CONFIG: Config = {
    let mut config = [0; 64];
    config[0] = 1;
    let mut register = 0;
    while register < 8 {
        config[16 + 2 * register] = 64;
        config[48 + register] = 16;
        register += 1;
    }
    Config(config)
};

/// Four registers' sums are under way together: more than the latency takes.
///
/// # Safety
/// 1. The CPU has AMX, and the system lets this process use it.
unsafe fn dpbssd(rounds: u32) -> u64 {
    if rounds == 0 {
        return 0;
    }
    let ones = Register([[0x0101_0101u32; 16]; 16]);
    let mut sums = [const { Register([[0u32; 16]; 16]) }; 4];
    // SAFETY: (1) see above; (2) (3) (4) a configuration of 64
    // bytes and a register's 1024 are read, and 1024 written to each of four that are borrowed
    // exclusively. The compiler does not use the registers.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tileloadd tmm4, [{ones} + {row}]",
            "tileloadd tmm5, [{ones} + {row}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tdpbssd tmm0, tmm4, tmm5",
            "tdpbssd tmm1, tmm4, tmm5",
            "tdpbssd tmm2, tmm4, tmm5",
            "tdpbssd tmm3, tmm4, tmm5",
            "dec {rounds:e}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            "tilerelease",
            config = in(reg) &CONFIG,
            ones = in(reg) &ones,
            rounds = inout(reg) rounds => _,
            sums = in(reg) &mut sums,
            row = in(reg) 64usize,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            options(nostack),
        );
    }
    sums.iter().flat_map(|sums| sums.0.as_flattened()).map(|&sum| u64::from(sum)).sum()
}
