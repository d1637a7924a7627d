//! Numbers that follow from a seed.

/// SplitMix64: small, and good enough to choose what happens next.
#[derive(Debug, Clone)]
pub(in crate::core::tests) struct Rng(u64);

impl Rng {
    pub(in crate::core::tests) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(in crate::core::tests) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub(in crate::core::tests) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// `true` in so many of a hundred cases.
    pub(in crate::core::tests) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(in crate::core::tests) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
