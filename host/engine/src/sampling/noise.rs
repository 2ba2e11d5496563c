//! Noise that is a pure function of `(seed, position, token)`.
//!
//! Philox4x32-10 is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel
//! Random Numbers: As Easy as 1, 2, 3" (SC 2011); the test uses its published known answers.

use tightwad_core::TokenId;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// The largest value [`gumbel`] can return, in nats: tokens further behind than this can never
/// win, which is what lets the sampler skip most of the vocabulary.
pub(crate) const GUMBEL_MAX: f32 = 37.5;

/// The smallest value [`gumbel`] can return, in nats.
pub(crate) const GUMBEL_MIN: f32 = -3.7;

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
    Noise::new(seed, position).of(token)
}

/// Tokens whose upper halves are drawn at once.
pub(crate) const CHUNK: usize = 64;

/// Uniforms below `(1 - e^-8) * 2^32` give noise below [`FAR`].
const BELOW_FAR: u32 = 4_293_526_400;

/// Noise that few tokens reach: one in 3,000.
pub(crate) const FAR: f32 = 8.0;

/// True when some token of the chunk may have noise above [`FAR`]. All tokens of the chunk at once, in
/// a form that compilers turn into vector instructions.
pub(crate) fn reaches_far(seed: u64, position: u32, chunk: u32) -> bool {
    const LANES: usize = CHUNK / 4;
    let (mut c0, mut c2) = ([position; LANES], [0_u32; LANES]);
    let mut c1: [u32; LANES] = std::array::from_fn(|lane| chunk * LANES as u32 + lane as u32);
    let mut c3 = [0_u32; LANES];
    let mut key = [low(seed), high(seed)];
    for _ in 0..ROUNDS {
        for lane in 0..LANES {
            let first = u64::from(MULTIPLIERS[0]) * u64::from(c0[lane]);
            let second = u64::from(MULTIPLIERS[1]) * u64::from(c2[lane]);
            c0[lane] = high(second) ^ c1[lane] ^ key[0];
            c1[lane] = low(second);
            c2[lane] = high(first) ^ c3[lane] ^ key[1];
            c3[lane] = low(first);
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    let greatest = |words: [u32; LANES]| words.into_iter().fold(0, u32::max);
    greatest(c0).max(greatest(c1)).max(greatest(c2)).max(greatest(c3)) > BELOW_FAR
}

/// The noise of one position. Four neighbouring tokens share one call of the generator for the upper
/// halves of their bits, which alone say that nearly all of them cannot win.
pub(crate) struct Noise {
    key: [u32; 2],
    position: u32,
    /// The four tokens whose upper halves are known.
    block: Option<u32>,
    upper: [u32; 4],
}

impl Noise {
    pub(crate) fn new(seed: u64, position: u32) -> Self {
        Self { key: [low(seed), high(seed)], position, block: None, upper: [0; 4] }
    }

    /// The noise of `token`.
    pub(crate) fn of(&mut self, token: TokenId) -> f32 {
        let upper = self.upper(token);
        let [lower, ..] = philox4x32([self.position, token, 1, 0], self.key);
        from_bits(upper, lower)
    }

    /// The noise of `token`, or `None` when it certainly does not exceed `needed`.
    pub(crate) fn above(&mut self, needed: f32, token: TokenId) -> Option<f32> {
        let possible = needed < FAR || (needed < GUMBEL_MAX && self.upper(token) > BELOW_FAR);
        possible.then(|| self.of(token))
    }

    fn upper(&mut self, token: TokenId) -> u32 {
        let block = token / 4;
        if self.block != Some(block) {
            self.upper = philox4x32([self.position, block, 0, 0], self.key);
            self.block = Some(block);
        }
        self.upper[token as usize % 4]
    }
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
    fn the_short_cuts_skip_only_noise_that_is_too_small() {
        for token in 0..200_000_u32 {
            let noise = gumbel(5, 9, token);
            assert!(noise <= FAR || Noise::new(5, 9).above(FAR, token).is_some());
            assert!(noise <= FAR || reaches_far(5, 9, token / CHUNK as u32));
        }
        let chunks = 200_000 / CHUNK as u32;
        let far = (0..chunks).filter(|chunk| reaches_far(5, 9, *chunk)).count();
        assert!(far < chunks as usize / 20, "{far} of {chunks}");
    }
}
