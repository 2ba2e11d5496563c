//! Samples one token at one position.

use tightwad_core::{Sampling, TokenId};

use crate::sampling::history::History;
use crate::sampling::noise::{
    CHUNK_TOKENS, GUMBEL_MAX, GUMBEL_MIN, HIGH_NOISE, PositionNoise, may_reach_high_noise,
};

/// A sampled token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledToken {
    /// The token.
    pub token: TokenId,
    /// True if a forward pass with other rounding might choose another token. The logits of such a pass can
    /// differ by up to the tie threshold.
    pub tie: bool,
}

/// The inputs of a sample beside the logits.
pub struct SampleContext<'a> {
    /// The sampling settings of the request.
    pub sampling: &'a Sampling,
    /// The tokens before this position.
    pub history: &'a History,
    /// The tokens that a grammar allows here; `None` allows all.
    pub allowed: Option<&'a dyn Fn(TokenId) -> bool>,
    /// The position of the sampled token, counted from the start of the prompt.
    pub position: u32,
    /// The greatest logit difference between two forward passes over the same token; 0 for row-invariant
    /// kernels.
    pub tie_threshold: f32,
}

/// Samples tokens, and reuses its buffers.
#[derive(Debug, Default)]
pub struct Sampler {
    logits: Vec<f32>,
    /// The tokens that the filters keep.
    kept_ids: Vec<TokenId>,
}

impl Sampler {
    /// Samples the next token from the raw `logits` (one per vocabulary entry).
    ///
    /// Returns `None` if no token is allowed.
    pub fn sample(&mut self, raw: &[f32], context: &SampleContext<'_>) -> Option<SampledToken> {
        let sampling = context.sampling;
        let is_unadjusted =
            sampling.logit_bias.is_empty() && !sampling.has_penalties() && context.allowed.is_none();
        if is_unadjusted && sampling.is_greedy() {
            return sample_greedy(raw, context.tie_threshold);
        }
        self.adjust(raw, context);
        if sampling.is_greedy() {
            return sample_greedy(&self.logits, context.tie_threshold);
        }
        for logit in &mut self.logits {
            *logit /= sampling.temperature;
        }
        let threshold = context.tie_threshold / sampling.temperature;
        let narrow = self.noisy_argmax(context, sampling.top_p * (1.0 - 2.0 * threshold))?;
        if threshold == 0.0 {
            return Some(SampledToken { token: narrow.0, tie: false });
        }
        // Rounding can move a token at the edge of the nucleus inside or outside. A result is safe only if
        // both limits give the same token.
        let wide = self.noisy_argmax(context, (sampling.top_p * (1.0 + 2.0 * threshold)).min(1.0))?;
        let tie = narrow.0 != wide.0 || narrow.1 < 2.0 * threshold || wide.1 < 2.0 * threshold;
        let exact = self.noisy_argmax(context, sampling.top_p)?;
        Some(SampledToken { token: exact.0, tie })
    }

    /// The probability of the token that was just sampled, under the adjusted and unfiltered distribution.
    ///
    /// The result is meaningful only directly after [`Sampler::sample`] with the same `raw` logits.
    #[must_use]
    pub fn probability(&self, raw: &[f32], sampling: &Sampling, token: TokenId) -> f32 {
        let logits = if sampling.is_greedy() { raw } else { &self.logits };
        let Some(logit) = logits.get(token as usize) else {
            return 0.0;
        };
        let max = max_logit(logits);
        // A term below e^-20 of the largest one changes the sum only negligibly.
        let sum: f32 =
            logits.iter().filter(|logit| **logit > max - 20.0).map(|logit| (logit - max).exp()).sum();
        (logit - max).exp() / sum
    }

    fn adjust(&mut self, raw: &[f32], context: &SampleContext<'_>) {
        self.logits.clear();
        self.logits.extend_from_slice(raw);
        for (token, bias) in &context.sampling.logit_bias {
            if let Some(logit) = self.logits.get_mut(*token as usize) {
                // In OpenAI's API, a bias of -100 forbids the token.
                *logit = if *bias <= -100.0 { f32::NEG_INFINITY } else { *logit + bias };
            }
        }
        if context.sampling.has_penalties() {
            context.history.penalize(context.sampling, &mut self.logits);
        }
        if let Some(allowed) = context.allowed {
            for (token, logit) in self.logits.iter_mut().enumerate() {
                if !allowed(token as TokenId) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }

    /// The best token of the filtered distribution with noise, and its margin over the second one.
    fn noisy_argmax(&mut self, context: &SampleContext<'_>, top_p: f32) -> Option<(TokenId, f32)> {
        let sampling = context.sampling;
        let max = max_logit(&self.logits);
        if max == f32::NEG_INFINITY {
            return None;
        }
        // A token behind the best one by more than the range of the noise cannot win, and its probability is
        // negligible.
        let mut min_logit = max - (GUMBEL_MAX - GUMBEL_MIN);
        if sampling.min_p > 0.0 {
            min_logit = min_logit.max(max + sampling.min_p.ln());
        }
        let best_by_logit = self.logits.iter().position(|logit| *logit == max)? as TokenId;
        let unfiltered = sampling.top_k == 0 && top_p >= 1.0;
        if !unfiltered {
            self.filter(sampling, min_logit, top_p);
        }
        let mut argmax = NoisyArgmax::new(&self.logits, context, best_by_logit);
        if unfiltered {
            argmax.push_all(min_logit)
        } else {
            self.kept_ids.iter().for_each(|id| argmax.push(*id))
        }
        argmax.top.winner()
    }

    /// Applies min-p, top-k and top-p.
    fn filter(&mut self, sampling: &Sampling, min_logit: f32, top_p: f32) {
        let logits = &self.logits;
        self.kept_ids.clear();
        self.kept_ids.extend((0..logits.len() as TokenId).filter(|id| logits[*id as usize] >= min_logit));
        if sampling.top_k > 0 {
            keep_top_k(&mut self.kept_ids, logits, sampling.top_k as usize);
        }
        if top_p < 1.0 {
            keep_top_p(&mut self.kept_ids, logits, top_p);
        }
    }
}

/// The argmax of logits with noise. The search starts with the token of the greatest logit, so it can skip
/// most other tokens without computing their noise.
struct NoisyArgmax<'a> {
    logits: &'a [f32],
    best_by_logit: TokenId,
    seed: u64,
    position: u32,
    noise: PositionNoise,
    top: TopTwo,
    /// True if a tie is possible. The second best score then matters.
    second_matters: bool,
}

impl<'a> NoisyArgmax<'a> {
    fn new(logits: &'a [f32], context: &SampleContext<'_>, best_by_logit: TokenId) -> Self {
        let (seed, position) = (context.sampling.seed, context.position);
        let mut noise = PositionNoise::new(seed, position);
        let first = logits[best_by_logit as usize] + noise.sample(best_by_logit);
        let top = TopTwo { best: Some(best_by_logit), first, second: f32::NEG_INFINITY };
        let second_matters = context.tie_threshold > 0.0;
        Self { logits, best_by_logit, seed, position, noise, top, second_matters }
    }

    /// The score that a token must exceed to change the result.
    fn score_to_beat(&self) -> f32 {
        if self.second_matters { self.top.second } else { self.top.first }
    }

    fn push(&mut self, id: TokenId) {
        let logit = self.logits[id as usize];
        let needed = self.score_to_beat() - logit;
        if id != self.best_by_logit
            && let Some(noise) = self.noise.sample_above(needed, id)
        {
            self.top.push(id, logit + noise);
        }
    }

    /// Adds all tokens with logits of at least `min_logit`, chunk by chunk. Most chunks contain no token that
    /// can win.
    fn push_all(&mut self, min_logit: f32) {
        for (chunk, chunk_logits) in (0..).zip(self.logits.chunks(CHUNK_TOKENS)) {
            let needs_high_noise = self.score_to_beat() - max_logit(chunk_logits) >= HIGH_NOISE;
            if needs_high_noise && !may_reach_high_noise(self.seed, self.position, chunk) {
                continue;
            }
            let ids =
                (chunk * CHUNK_TOKENS as u32..).zip(chunk_logits).filter(|(_, logit)| **logit >= min_logit);
            ids.for_each(|(id, _)| self.push(id));
        }
    }
}

fn sample_greedy(logits: &[f32], tie_threshold: f32) -> Option<SampledToken> {
    let mut top = TopTwo { best: None, first: f32::NEG_INFINITY, second: f32::NEG_INFINITY };
    for (token, logit) in (0..).zip(logits) {
        top.push(token, *logit);
    }
    let (token, margin) = top.winner()?;
    // In another pass, the best two scores can both move towards each other by the threshold.
    Some(SampledToken { token, tie: tie_threshold > 0.0 && margin < 2.0 * tie_threshold })
}

/// The best two scores so far.
struct TopTwo {
    best: Option<TokenId>,
    first: f32,
    second: f32,
}

impl TopTwo {
    fn push(&mut self, token: TokenId, score: f32) {
        if score > self.first {
            (self.best, self.second, self.first) = (Some(token), self.first, score);
        } else if score > self.second {
            self.second = score;
        }
    }

    /// The best token and its margin over the second one.
    fn winner(&self) -> Option<(TokenId, f32)> {
        self.best.map(|token| (token, self.first - self.second))
    }
}

fn max_logit(logits: &[f32]) -> f32 {
    // Sixteen lanes, for vector instructions.
    let (chunks, rest) = logits.as_chunks::<16>();
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let lanes = chunks.iter().fold([f32::NEG_INFINITY; 16], |mut lanes, chunk| {
        for (lane, logit) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, *logit);
        }
        lanes
    });
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, greater)
}

fn by_descending_logit(logits: &[f32]) -> impl Fn(&TokenId, &TokenId) -> std::cmp::Ordering + Copy + '_ {
    |a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
}

fn keep_top_k(ids: &mut Vec<TokenId>, logits: &[f32], k: usize) {
    if k < ids.len() {
        ids.select_nth_unstable_by(k - 1, by_descending_logit(logits));
        ids.truncate(k);
    }
}

/// Keeps the smallest set of best tokens with at least `top_p` of the probability of all `ids`.
fn keep_top_p(ids: &mut Vec<TokenId>, logits: &[f32], top_p: f32) {
    let max = ids.iter().map(|id| logits[*id as usize]).fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &TokenId| f64::from((logits[*id as usize] - max).exp());
    // The sum is in the order of token ids, independent of top-k's selection order.
    if !ids.is_sorted() {
        ids.sort_unstable();
    }
    let target = f64::from(top_p) * ids.iter().map(weight).sum::<f64>();
    let (mut sorted, mut chunk, mut reached) = (0, 64, 0.0);
    while sorted < ids.len() {
        let unsorted = &mut ids[sorted..];
        let size = chunk.min(unsorted.len());
        if size < unsorted.len() {
            unsorted.select_nth_unstable_by(size - 1, by_descending_logit(logits));
        }
        unsorted[..size].sort_unstable_by(by_descending_logit(logits));
        for (offset, id) in unsorted[..size].iter().enumerate() {
            reached += weight(id);
            if reached >= target {
                ids.truncate(sorted + offset + 1);
                return;
            }
        }
        sorted += size;
        chunk *= 4;
    }
}

#[cfg(test)]
mod tests {
    use tightwad_core::SamplingSpec;

    use super::*;

    fn sample(spec: SamplingSpec, logits: &[f32], position: u32) -> Option<TokenId> {
        let sampling = Sampling::new(spec).unwrap();
        let context = SampleContext {
            sampling: &sampling,
            history: &History::default(),
            allowed: None,
            position,
            tie_threshold: 0.0,
        };
        Sampler::default().sample(logits, &context).map(|sampled| sampled.token)
    }

    fn frequencies(spec: &SamplingSpec, logits: &[f32]) -> Vec<f64> {
        let draws = 20_000;
        let mut counts = vec![0u32; logits.len()];
        for position in 0..draws {
            counts[sample(spec.clone(), logits, position).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
    }

    #[test]
    fn noise_samples_the_softmax() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let total: f64 = logits.iter().map(|l: &f32| f64::from(l.exp())).sum();
        let measured = frequencies(&SamplingSpec { seed: 11, ..SamplingSpec::default() }, &logits);
        for (frequency, logit) in measured.iter().zip(logits) {
            assert!((frequency - f64::from(logit.exp()) / total).abs() < 0.015, "{measured:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_sufficient_set() {
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        let spec = SamplingSpec { top_p: 0.85, ..SamplingSpec::default() };
        let measured = frequencies(&spec, &logits);
        assert_eq!(measured[0], 0.0);
        assert!((measured[1] - 2.0 / 3.0).abs() < 0.015);
    }

    #[test]
    fn top_k_and_min_p_drop_the_tail() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let top_k = frequencies(&SamplingSpec { top_k: 2, ..SamplingSpec::default() }, &logits);
        assert_eq!((top_k[0], top_k[1]), (0.0, 0.0));
        let min_p = frequencies(&SamplingSpec { min_p: 0.2, ..SamplingSpec::default() }, &logits);
        assert_eq!((min_p[0], min_p[1]), (0.0, 0.0));
        assert!(min_p[2] > 0.0);
    }

    #[test]
    fn greedy_sampling_takes_the_best_token_and_a_bias_can_forbid_it() {
        let spec =
            SamplingSpec { temperature: 0.0, logit_bias: vec![(1, -100.0)], ..SamplingSpec::default() };
        assert_eq!(sample(spec, &[0.0, 9.0, 5.0], 0), Some(2));
    }

    #[test]
    fn sample_is_none_if_no_token_is_allowed() {
        let sampling = Sampling::new(SamplingSpec::default()).unwrap();
        let context = SampleContext {
            sampling: &sampling,
            history: &History::default(),
            allowed: Some(&|_| false),
            position: 0,
            tie_threshold: 0.0,
        };
        assert_eq!(Sampler::default().sample(&[1.0, 2.0], &context), None);
    }

    #[test]
    fn close_second_is_a_tie_only_if_kernels_depend_on_the_batch() {
        assert_eq!(sample_greedy(&[1.0, 1.01], 0.0), Some(SampledToken { token: 1, tie: false }));
        assert_eq!(sample_greedy(&[1.0, 1.01], 0.1), Some(SampledToken { token: 1, tie: true }));
        assert_eq!(sample_greedy(&[1.0, 1.5], 0.1), Some(SampledToken { token: 1, tie: false }));
    }
}
