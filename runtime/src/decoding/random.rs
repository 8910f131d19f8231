//! The generator that draws follow from.

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// xoshiro256++ (Blackman and Vigna 2019), seeded with SplitMix64 as its authors recommend.
#[derive(Clone, Debug)]
pub(crate) struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The generator of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// The generator of the next sequence of the same seed: 2^128 draws further on.
    pub(crate) fn next_sequence(mut self) -> Self {
        self.0.jump();
        self
    }

    /// A number in [0, 1): the upper 53 bits of a draw.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}
