//! Small random numbers for mutations: the same from the same seed.

/// SplitMix64 (Steele et al. 2014).
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// A word that arithmetic stumbles over.
    pub fn word(&mut self) -> u32 {
        match self.below(6) {
            0 => self.pick(&[0, 1, u32::MAX, 1 << 31, i32::MAX as u32, 0xffff, 0x10000]),
            1 => 1 << self.below(32),
            2 => (1u32 << self.below(32)).wrapping_sub(1),
            3 => self.below(300) as u32,
            // Infinities, NaNs, subnormals, −0.
            4 => self.pick(&[0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x0000_0001, 0x8000_0000]),
            _ => self.next() as u32,
        }
    }
}
