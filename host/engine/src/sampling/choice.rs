//! Picking one token at one position.

use tightwad_core::{Sampling, TokenId};

use crate::sampling::history::History;
use crate::sampling::noise::{CHUNK, FAR, GUMBEL_MAX, GUMBEL_MIN, Noise, reaches_far};

/// The outcome of one pick.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The chosen token.
    pub token: TokenId,
    /// True when another forward pass that rounds differently, by up to the tie threshold in each
    /// logit, might have chosen another token.
    pub tie: bool,
}

/// What a pick depends on beside the logits.
pub struct Context<'a> {
    /// The request's settings.
    pub sampling: &'a Sampling,
    /// The tokens before this position.
    pub history: &'a History,
    /// Tokens that a grammar allows here; `None` allows all.
    pub allowed: Option<&'a dyn Fn(TokenId) -> bool>,
    /// Position of the token to choose, counted from the start of the prompt.
    pub position: u32,
    /// Greatest difference, in a logit, between two forward passes of the same token. 0 where the
    /// kernels do not depend on the batch.
    pub tie_threshold: f32,
}

/// Chooses tokens; keeps its buffers between picks.
#[derive(Debug, Default)]
pub struct Picker {
    logits: Vec<f32>,
    kept: Vec<TokenId>,
}

impl Picker {
    /// Picks the token that follows, from the raw `logits` (one a vocabulary entry).
    ///
    /// Returns `None` when no token is allowed.
    pub fn pick(&mut self, raw: &[f32], context: &Context<'_>) -> Option<Choice> {
        let sampling = context.sampling;
        let plain = sampling.logit_bias.is_empty() && !sampling.has_penalties() && context.allowed.is_none();
        if plain && sampling.is_greedy() {
            return best_two(raw, context.tie_threshold);
        }
        self.adjust(raw, context);
        if sampling.is_greedy() {
            return best_two(&self.logits, context.tie_threshold);
        }
        for logit in &mut self.logits {
            *logit /= sampling.temperature;
        }
        let threshold = context.tie_threshold / sampling.temperature;
        let narrow = self.noisy_best(context, sampling.top_p * (1.0 - 2.0 * threshold))?;
        if threshold == 0.0 {
            return Some(Choice { token: narrow.0, tie: false });
        }
        // A token at the edge of the nucleus may be in or out: both edges must agree.
        let wide = self.noisy_best(context, (sampling.top_p * (1.0 + 2.0 * threshold)).min(1.0))?;
        let tie = narrow.0 != wide.0 || narrow.1 < 2.0 * threshold || wide.1 < 2.0 * threshold;
        let exact = self.noisy_best(context, sampling.top_p)?;
        Some(Choice { token: exact.0, tie })
    }

    /// The probability that the pick just made had under the adjusted, unfiltered distribution.
    ///
    /// Meaningful right after [`Picker::pick`] with the same `raw` logits.
    #[must_use]
    pub fn probability(&self, raw: &[f32], sampling: &Sampling, token: TokenId) -> f32 {
        let logits = if sampling.is_greedy() { raw } else { &self.logits };
        let Some(own) = logits.get(token as usize) else {
            return 0.0;
        };
        let max = maximum(logits);
        // Terms below e^-20 of the best cannot move the sum visibly.
        let sum: f32 =
            logits.iter().filter(|logit| **logit > max - 20.0).map(|logit| (logit - max).exp()).sum();
        (own - max).exp() / sum
    }

    fn adjust(&mut self, raw: &[f32], context: &Context<'_>) {
        self.logits.clear();
        self.logits.extend_from_slice(raw);
        for (token, bias) in &context.sampling.logit_bias {
            if let Some(logit) = self.logits.get_mut(*token as usize) {
                // -100 is OpenAI's way to say never.
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

    /// Best token of the filtered distribution with noise, and its lead over the second.
    fn noisy_best(&mut self, context: &Context<'_>, top_p: f32) -> Option<(TokenId, f32)> {
        let sampling = context.sampling;
        let max = maximum(&self.logits);
        if max == f32::NEG_INFINITY {
            return None;
        }
        // Beyond the noise's range behind the best, a token cannot win, and weighs nothing.
        let mut floor = max - (GUMBEL_MAX - GUMBEL_MIN);
        if sampling.min_p > 0.0 {
            floor = floor.max(max + sampling.min_p.ln());
        }
        let favourite = self.logits.iter().position(|logit| *logit == max)? as TokenId;
        let all = sampling.top_k == 0 && top_p >= 1.0;
        if !all {
            self.keep(sampling, floor, top_p);
        }
        let mut race = NoisyRace::new(&self.logits, context, favourite);
        if all {
            race.enter_all(floor)
        } else {
            self.kept.iter().for_each(|id| race.enter(*id))
        }
        race.race.lead()
    }

    /// Applies the filters.
    fn keep(&mut self, sampling: &Sampling, floor: f32, top_p: f32) {
        let logits = &self.logits;
        self.kept.clear();
        self.kept.extend((0..logits.len() as TokenId).filter(|id| logits[*id as usize] >= floor));
        if sampling.top_k > 0 {
            keep_best(&mut self.kept, logits, sampling.top_k as usize);
        }
        if top_p < 1.0 {
            keep_nucleus(&mut self.kept, logits, top_p);
        }
    }
}

/// A race of logits with noise. It starts with the favourite, which leaves most of the others without
/// a chance from the beginning.
struct NoisyRace<'a> {
    logits: &'a [f32],
    favourite: TokenId,
    seed: u64,
    position: u32,
    noise: Noise,
    race: Race,
    /// The second matters only where a tie is possible.
    second_matters: bool,
}

impl<'a> NoisyRace<'a> {
    fn new(logits: &'a [f32], context: &Context<'_>, favourite: TokenId) -> Self {
        let (seed, position) = (context.sampling.seed, context.position);
        let mut noise = Noise::new(seed, position);
        let first = logits[favourite as usize] + noise.of(favourite);
        let race = Race { best: Some(favourite), first, second: f32::NEG_INFINITY };
        let second_matters = context.tie_threshold > 0.0;
        Self { logits, favourite, seed, position, noise, race, second_matters }
    }

    /// The score that matters to whoever comes next.
    fn bar(&self) -> f32 {
        if self.second_matters { self.race.second } else { self.race.first }
    }

    fn enter(&mut self, id: TokenId) {
        let logit = self.logits[id as usize];
        let needed = self.bar() - logit;
        if id != self.favourite
            && let Some(noise) = self.noise.above(needed, id)
        {
            self.race.enter(id, logit + noise);
        }
    }

    /// Enters every token at or above `floor`, chunk by chunk: most chunks have nobody with a chance.
    fn enter_all(&mut self, floor: f32) {
        for (chunk, own) in (0..).zip(self.logits.chunks(CHUNK)) {
            let far = self.bar() - maximum(own) >= FAR;
            if far && !reaches_far(self.seed, self.position, chunk) {
                continue;
            }
            let ids = (chunk * CHUNK as u32..).zip(own).filter(|(_, logit)| **logit >= floor);
            ids.for_each(|(id, _)| self.enter(id));
        }
    }
}

fn best_two(logits: &[f32], tie_threshold: f32) -> Option<Choice> {
    let mut race = Race { best: None, first: f32::NEG_INFINITY, second: f32::NEG_INFINITY };
    for (token, logit) in (0..).zip(logits) {
        race.enter(token, *logit);
    }
    let (token, margin) = race.lead()?;
    // Both of the two best may move, towards each other.
    Some(Choice { token, tie: tie_threshold > 0.0 && margin < 2.0 * tie_threshold })
}

/// The two best scores so far.
struct Race {
    best: Option<TokenId>,
    first: f32,
    second: f32,
}

impl Race {
    fn enter(&mut self, token: TokenId, score: f32) {
        if score > self.first {
            (self.best, self.second, self.first) = (Some(token), self.first, score);
        } else if score > self.second {
            self.second = score;
        }
    }

    /// The winner and its lead over the second.
    fn lead(&self) -> Option<(TokenId, f32)> {
        self.best.map(|token| (token, self.first - self.second))
    }
}

fn maximum(logits: &[f32]) -> f32 {
    // In lanes, for vector instructions.
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

fn best_first(logits: &[f32]) -> impl Fn(&TokenId, &TokenId) -> std::cmp::Ordering + Copy + '_ {
    |a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b))
}

fn keep_best(kept: &mut Vec<TokenId>, logits: &[f32], k: usize) {
    if k < kept.len() {
        kept.select_nth_unstable_by(k - 1, best_first(logits));
        kept.truncate(k);
    }
}

/// Keeps the smallest set of best tokens that holds `top_p` of the probability of `kept`.
fn keep_nucleus(kept: &mut Vec<TokenId>, logits: &[f32], top_p: f32) {
    let max = kept.iter().map(|id| logits[*id as usize]).fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &TokenId| f64::from((logits[*id as usize] - max).exp());
    // Summed in the order of the ids, which does not depend on how top-k selected them.
    if !kept.is_sorted() {
        kept.sort_unstable();
    }
    let wanted = f64::from(top_p) * kept.iter().map(weight).sum::<f64>();
    let (mut sorted, mut chunk, mut reached) = (0, 64, 0.0);
    while sorted < kept.len() {
        let rest = &mut kept[sorted..];
        let size = chunk.min(rest.len());
        if size < rest.len() {
            rest.select_nth_unstable_by(size - 1, best_first(logits));
        }
        rest[..size].sort_unstable_by(best_first(logits));
        for (offset, id) in rest[..size].iter().enumerate() {
            reached += weight(id);
            if reached >= wanted {
                kept.truncate(sorted + offset + 1);
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

    fn pick(spec: SamplingSpec, logits: &[f32], position: u32) -> Option<TokenId> {
        let sampling = Sampling::new(spec).unwrap();
        let context = Context {
            sampling: &sampling,
            history: &History::default(),
            allowed: None,
            position,
            tie_threshold: 0.0,
        };
        Picker::default().pick(logits, &context).map(|choice| choice.token)
    }

    fn frequencies(spec: &SamplingSpec, logits: &[f32]) -> Vec<f64> {
        let draws = 20_000;
        let mut counts = vec![0u32; logits.len()];
        for position in 0..draws {
            counts[pick(spec.clone(), logits, position).unwrap() as usize] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / f64::from(draws)).collect()
    }

    #[test]
    fn noise_samples_the_softmax() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let total: f64 = logits.iter().map(|l: &f32| f64::from(l.exp())).sum();
        let found = frequencies(&SamplingSpec { seed: 11, ..SamplingSpec::default() }, &logits);
        for (frequency, logit) in found.iter().zip(logits) {
            assert!((frequency - f64::from(logit.exp()) / total).abs() < 0.015, "{found:?}");
        }
    }

    #[test]
    fn top_p_keeps_the_smallest_sufficient_set() {
        let logits = [0.1f32.ln(), 0.6f32.ln(), 0.3f32.ln()];
        let spec = SamplingSpec { top_p: 0.85, ..SamplingSpec::default() };
        let found = frequencies(&spec, &logits);
        assert_eq!(found[0], 0.0);
        assert!((found[1] - 2.0 / 3.0).abs() < 0.015);
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
    fn greedy_takes_the_best_and_a_bias_can_forbid_it() {
        let spec =
            SamplingSpec { temperature: 0.0, logit_bias: vec![(1, -100.0)], ..SamplingSpec::default() };
        assert_eq!(pick(spec, &[0.0, 9.0, 5.0], 0), Some(2));
    }

    #[test]
    fn nothing_allowed_is_no_choice() {
        let sampling = Sampling::new(SamplingSpec::default()).unwrap();
        let context = Context {
            sampling: &sampling,
            history: &History::default(),
            allowed: Some(&|_| false),
            position: 0,
            tie_threshold: 0.0,
        };
        assert_eq!(Picker::default().pick(&[1.0, 2.0], &context), None);
    }

    #[test]
    fn a_close_second_is_a_tie_only_where_kernels_depend_on_the_batch() {
        assert_eq!(best_two(&[1.0, 1.01], 0.0), Some(Choice { token: 1, tie: false }));
        assert_eq!(best_two(&[1.0, 1.01], 0.1), Some(Choice { token: 1, tie: true }));
        assert_eq!(best_two(&[1.0, 1.5], 0.1), Some(Choice { token: 1, tie: false }));
    }
}
