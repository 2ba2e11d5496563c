//! Gumbel noise as a pure function of `(seed, position, token)`.
//!
//! Philox4x32-10 is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers:
//! As Easy as 1, 2, 3" (SC 2011). The test uses their published answers.

use tightwad_core::TokenId;

const PHILOX_MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL_INCREMENTS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const PHILOX_ROUNDS: usize = 10;

/// The largest value of [`gumbel`], in nats. A token whose logit is further below the best one can never win,
/// so the sampler skips most of the vocabulary.
pub(crate) const GUMBEL_MAX: f32 = 37.5;

/// The smallest value of [`gumbel`], in nats.
pub(crate) const GUMBEL_MIN: f32 = -3.7;

/// Philox4x32 with ten rounds.
#[must_use]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..PHILOX_ROUNDS {
        let [c0, c1, c2, c3] = counter;
        let first = u64::from(PHILOX_MULTIPLIERS[0]) * u64::from(c0);
        let second = u64::from(PHILOX_MULTIPLIERS[1]) * u64::from(c2);
        counter = [
            high_word(second) ^ c1 ^ key[0],
            low_word(second),
            high_word(first) ^ c3 ^ key[1],
            low_word(first),
        ];
        key = [key[0].wrapping_add(WEYL_INCREMENTS[0]), key[1].wrapping_add(WEYL_INCREMENTS[1])];
    }
    counter
}

/// Standard Gumbel noise in nats for `token` at `position` of the sequence (prompt included).
#[must_use]
pub fn gumbel(seed: u64, position: u32, token: TokenId) -> f32 {
    PositionNoise::new(seed, position).sample(token)
}

/// The number of tokens whose high bits [`may_reach_high_noise`] computes together.
pub(crate) const CHUNK_TOKENS: usize = 64;

/// High bits up to `(1 - e^-8) * 2^32` give noise below [`HIGH_NOISE`].
const MAX_LOW_NOISE_BITS: u32 = 4_293_526_400;

/// Noise that one token in 3,000 exceeds.
pub(crate) const HIGH_NOISE: f32 = 8.0;

/// True if a token of the chunk can have noise above [`HIGH_NOISE`]. The loops over all tokens of the chunk
/// have a form that compilers vectorize.
pub(crate) fn may_reach_high_noise(seed: u64, position: u32, chunk: u32) -> bool {
    const LANES: usize = CHUNK_TOKENS / 4;
    let (mut c0, mut c2) = ([position; LANES], [0_u32; LANES]);
    let mut c1: [u32; LANES] = std::array::from_fn(|lane| chunk * LANES as u32 + lane as u32);
    let mut c3 = [0_u32; LANES];
    let mut key = [low_word(seed), high_word(seed)];
    for _ in 0..PHILOX_ROUNDS {
        for lane in 0..LANES {
            let first = u64::from(PHILOX_MULTIPLIERS[0]) * u64::from(c0[lane]);
            let second = u64::from(PHILOX_MULTIPLIERS[1]) * u64::from(c2[lane]);
            c0[lane] = high_word(second) ^ c1[lane] ^ key[0];
            c1[lane] = low_word(second);
            c2[lane] = high_word(first) ^ c3[lane] ^ key[1];
            c3[lane] = low_word(first);
        }
        key = [key[0].wrapping_add(WEYL_INCREMENTS[0]), key[1].wrapping_add(WEYL_INCREMENTS[1])];
    }
    let max = |words: [u32; LANES]| words.into_iter().fold(0, u32::max);
    max(c0).max(max(c1)).max(max(c2)).max(max(c3)) > MAX_LOW_NOISE_BITS
}

/// The noise of one position. Four consecutive tokens share one call of the generator for the high 32 bits of
/// their random numbers. For nearly all tokens, these bits alone prove that the token cannot win.
pub(crate) struct PositionNoise {
    key: [u32; 2],
    position: u32,
    /// The index of the four tokens whose `high_bits` are computed.
    block: Option<u32>,
    high_bits: [u32; 4],
}

impl PositionNoise {
    pub(crate) fn new(seed: u64, position: u32) -> Self {
        Self { key: [low_word(seed), high_word(seed)], position, block: None, high_bits: [0; 4] }
    }

    /// The noise of `token`.
    pub(crate) fn sample(&mut self, token: TokenId) -> f32 {
        let high_bits = self.high_bits(token);
        let [low_bits, ..] = philox4x32([self.position, token, 1, 0], self.key);
        gumbel_from_bits(high_bits, low_bits)
    }

    /// The noise of `token`; `None` if it certainly does not exceed `needed`.
    pub(crate) fn sample_above(&mut self, needed: f32, token: TokenId) -> Option<f32> {
        let may_exceed =
            needed < HIGH_NOISE || (needed < GUMBEL_MAX && self.high_bits(token) > MAX_LOW_NOISE_BITS);
        may_exceed.then(|| self.sample(token))
    }

    fn high_bits(&mut self, token: TokenId) -> u32 {
        let block = token / 4;
        if self.block != Some(block) {
            self.high_bits = philox4x32([self.position, block, 0, 0], self.key);
            self.block = Some(block);
        }
        self.high_bits[token as usize % 4]
    }
}

fn gumbel_from_bits(high_bits: u32, low_bits: u32) -> f32 {
    let bits = (u64::from(high_bits) << 32 | u64::from(low_bits)) >> 11;
    // The middle of one of 2^53 equal intervals: never 0, never 1.
    let uniform = (bits as f64 + 0.5) / (1u64 << 53) as f64;
    (-(-uniform.ln()).ln()) as f32
}

fn high_word(x: u64) -> u32 {
    (x >> 32) as u32
}

fn low_word(x: u64) -> u32 {
    (x & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_matches_published_answers() {
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn gumbel_noise_has_the_right_mean_and_bounds() {
        let draws: Vec<f32> = (0..200_000).map(|token| gumbel(7, 3, token)).collect();
        let mean = draws.iter().map(|g| f64::from(*g)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.577_2).abs() < 0.01, "Euler's constant, not {mean}");
        assert!(draws.iter().all(|g| (GUMBEL_MIN..GUMBEL_MAX).contains(g)));
    }

    #[test]
    fn skipped_noise_is_always_too_small() {
        for token in 0..200_000_u32 {
            let noise = gumbel(5, 9, token);
            assert!(
                noise <= HIGH_NOISE || PositionNoise::new(5, 9).sample_above(HIGH_NOISE, token).is_some()
            );
            assert!(noise <= HIGH_NOISE || may_reach_high_noise(5, 9, token / CHUNK_TOKENS as u32));
        }
        let chunks = 200_000 / CHUNK_TOKENS as u32;
        let high = (0..chunks).filter(|chunk| may_reach_high_noise(5, 9, *chunk)).count();
        assert!(high < chunks as usize / 20, "{high} of {chunks}");
    }
}
