//! Noise that is a pure function of `(seed, position, token)`.
//!
//! Philox4x32-10 is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel
//! Random Numbers: As Easy as 1, 2, 3" (SC 2011); the test uses its published known answers.

use super::TokenId;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The largest value [`gumbel`] can return, in nats: tokens further behind than this can never
/// win, which is what lets the sampler skip most of the vocabulary.
pub(super) const GUMBEL_MAX: f32 = 37.5;

/// The smallest value [`gumbel`] can return, in nats.
pub(super) const GUMBEL_MIN: f32 = -3.7;

/// Philox4x32 with ten rounds.
#[must_use]
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let [c0, c1, c2, c3] = counter;
        let first = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        counter = [high(second) ^ c1 ^ key[0], low(second), high(first) ^ c3 ^ key[1], low(first)];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// Standard Gumbel noise in nats for `token` at `position` of the sequence (prompt included).
#[must_use]
pub fn gumbel(seed: u64, position: u32, token: TokenId) -> f32 {
    let [a, b, ..] = philox4x32([position, token, 0, 0], [low(seed), high(seed)]);
    from_bits(a, b)
}

/// [`gumbel`], or `None` when it certainly does not exceed `needed`: spares two logarithms for
/// nearly every token of a vocabulary.
pub(super) fn gumbel_above(needed: f32, seed: u64, position: u32, token: TokenId) -> Option<f32> {
    /// Uniforms below `(1 - e^-8) * 2^32` give noise below 8.
    const BELOW_8: u32 = 4_293_526_400;
    let [a, b, ..] = philox4x32([position, token, 0, 0], [low(seed), high(seed)]);
    (needed < 8.0 || a > BELOW_8).then(|| from_bits(a, b))
}

fn from_bits(a: u32, b: u32) -> f32 {
    let bits = (u64::from(a) << 32 | u64::from(b)) >> 11;
    // The middle of one of 2^53 equal cells: never 0, never 1.
    let uniform = (bits as f64 + 0.5) / (1u64 << 53) as f64;
    (-(-uniform.ln()).ln()) as f32
}

fn high(x: u64) -> u32 {
    (x >> 32) as u32
}

fn low(x: u64) -> u32 {
    (x & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_answers() {
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
    fn gumbel_has_the_right_mean_and_stays_in_bounds() {
        let draws: Vec<f32> = (0..200_000).map(|token| gumbel(7, 3, token)).collect();
        let mean = draws.iter().map(|g| f64::from(*g)).sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.577_2).abs() < 0.01, "Euler's constant, not {mean}");
        assert!(draws.iter().all(|g| (GUMBEL_MIN..GUMBEL_MAX).contains(g)));
    }

    #[test]
    fn the_short_cut_skips_only_noise_that_is_too_small() {
        for token in 0..200_000 {
            let noise = gumbel(5, 9, token);
            assert!(gumbel_above(8.0, 5, 9, token).is_some() || noise <= 8.0);
        }
    }
}
