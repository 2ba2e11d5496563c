//! Samples the acceptances for audits, each with the same chance, independent of earlier audits.

/// The odd number nearest to 2^64 over the golden ratio: the increment of `SplitMix64`.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// A random generator whose only state is a counter (`SplitMix64`; Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub struct AuditSampler {
    counter: u64,
    rate: f64,
}

impl AuditSampler {
    /// Samples this rate of acceptances. The seed is the time of a clock: drafters cannot know it.
    #[must_use]
    pub fn new(seed: u64, rate: f64) -> Self {
        Self { counter: seed, rate }
    }

    /// True if the next acceptance is audited.
    pub fn is_due(&mut self) -> bool {
        self.counter = self.counter.wrapping_add(GOLDEN_GAMMA);
        // 53 bits fill the fraction of an f64: 0 is possible, 1 is not.
        ((mix(self.counter) >> 11) as f64 / (1_u64 << 53) as f64) < self.rate
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_thousand(seed: u64, rate: f64) -> usize {
        let mut sampler = AuditSampler::new(seed, rate);
        (0..1000).filter(|_| sampler.is_due()).count()
    }

    #[test]
    fn audit_rate_is_kept() {
        for seed in [0, 1, u64::MAX] {
            assert_eq!(of_thousand(seed, 1.0), 1000);
            assert_eq!(of_thousand(seed, 0.0), 0);
            let few = of_thousand(seed, 0.05);
            assert!((25..=80).contains(&few), "{few} of 1000 at 5 %");
        }
    }

    #[test]
    fn seeds_give_different_samples() {
        let first = |seed| AuditSampler::new(seed, 0.5).is_due();
        assert!((0..64).any(first) && !(0..64).all(first));
    }
}
