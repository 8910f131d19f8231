//! How a batch of tokens is divided for matrix products: into parts that threads work on.

use core::ops::Range;

use crate::isa::Isa;
use crate::kernels::AVX2_TILE;
use crate::parallel::{MAX_THREADS, share_of_units};

/// Fewest tokens of a part that are worth reading all weights of a matrix for.
const FEWEST: usize = 32;

/// Into what a set of kernels likes a batch to be divided.
#[derive(Clone, Copy)]
pub(crate) struct Parting {
    /// Tokens that parts are multiples of: those of a panel on ARM and of many tokens with AVX2, those of a
    /// register of AMX. Tiles of AVX-512 may be short.
    unit: usize,
    /// Tokens of a part where a thread has several: few enough that what comes out of them stays in the L2
    /// cache, and but for AVX-512 as many as share the unpacking of a record.
    part: Size,
    /// Tokens that a batch is a multiple of where another one follows: those that do not make a whole unit
    /// cost most on ARM. With AVX2 they cost little, and a prompt of 512 takes two batches of 256, not three.
    batch: usize,
}

/// Tokens of a part, as long as [`MAX_THREADS`] parts are enough.
#[derive(Clone, Copy)]
enum Size {
    AtLeast(usize),
    AtMost(usize),
}

impl Parting {
    pub(crate) fn of(isa: Isa) -> Self {
        match isa {
            Isa::Amx => Self { unit: 16, part: Size::AtLeast(64), batch: 16 },
            Isa::Avx2 => Self { unit: 6, part: Size::AtMost(AVX2_TILE), batch: 1 },
            _ if cfg!(target_arch = "aarch64") => {
                Self { unit: 6, part: Size::AtLeast(60), batch: 6 }
            }
            _ => Self { unit: 8, part: Size::AtLeast(FEWEST), batch: 8 },
        }
    }

    /// How many of a batch's tokens to take where others follow.
    pub(crate) fn where_others_follow(self, m: usize) -> usize {
        if m < self.batch { m } else { m / self.batch * self.batch }
    }

    /// How many parts of consecutive tokens a batch is split into, if there are enough tokens for each
    /// thread: the same number of parts for each, and more than one where possible, so that a thread
    /// that is held up leaves some of its share to others.
    pub(crate) fn parts(self, m: usize, threads: usize) -> Option<usize> {
        let each = match self.part {
            Size::AtLeast(tokens) => m / (threads * tokens),
            Size::AtMost(tokens) => m.div_ceil(threads * tokens),
        };
        let each = each.clamp(1, MAX_THREADS / threads);
        (m >= threads * FEWEST).then_some(threads * each)
    }

    /// Tokens of a part: whole units, which matrix products take together.
    pub(crate) fn tokens(self, m: usize, parts: usize, part: usize) -> Range<usize> {
        share_of_units(m, self.unit, parts, part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_that_others_follow_are_cut_to_what_their_set_likes() {
        let taken = |isa| [250, 256, 3].map(|m| Parting::of(isa).where_others_follow(m));
        assert_eq!(taken(Isa::Amx), [240, 256, 3]);
        assert_eq!(taken(Isa::Avx2), [250, 256, 3]);
        let [neon, others] = [[246, 252, 3], [248, 256, 3]];
        assert_eq!(taken(Isa::Neon), if cfg!(target_arch = "aarch64") { neon } else { others });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(taken(Isa::Avx512Vnni), others);
        }
    }

    #[test]
    fn parts_of_a_batch_are_its_tokens_in_order() {
        for isa in Isa::ALL {
            let parting = Parting::of(isa);
            for m in (1..200).chain([512, 777, 1024]) {
                for threads in 1..=MAX_THREADS {
                    assert_parts(parting, m, threads);
                }
            }
        }
    }

    #[test]
    fn parts_for_avx2_are_a_tile_each() {
        let parting = Parting::of(Isa::Avx2);
        for (m, threads, expected) in
            [(256, 1, 4), (256, 2, 4), (256, 3, 6), (256, 4, 4), (73, 1, 2)]
        {
            let parts = parting.parts(m, threads);
            assert_eq!(parts, Some(expected), "{m} tokens, {threads} threads");
            let most = (0..expected).map(|part| parting.tokens(m, expected, part).len()).max();
            assert!(most <= Some(AVX2_TILE), "{m} tokens, {threads} threads: {most:?}");
        }
    }

    fn assert_parts(parting: Parting, m: usize, threads: usize) {
        let Some(parts) = parting.parts(m, threads) else {
            assert!(m < threads * FEWEST);
            return;
        };
        assert!(parts <= MAX_THREADS && parts.is_multiple_of(threads));
        let mut end = 0;
        for part in 0..parts {
            let tokens = parting.tokens(m, parts, part);
            assert_eq!(tokens.start, end);
            let fewest = FEWEST - parting.unit;
            assert!(tokens.len() >= fewest, "{m} tokens, {threads} threads: {tokens:?}");
            end = tokens.end;
        }
        assert_eq!(end, m);
    }
}
