//! Log-probabilities of a chosen token and of the best alternatives.

use tightwad_core::{TokenId, TokenLogprobs};

/// Log-softmax of raw `logits` at `token` and at the `n` best tokens.
#[must_use]
pub fn logprobs(logits: &[f32], token: TokenId, n: usize) -> TokenLogprobs {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
    let normalizer = max + sum.ln() as f32;
    let mut best: Vec<TokenId> = (0..logits.len() as u32).collect();
    let n = n.min(best.len());
    let by_logit =
        |a: &TokenId, b: &TokenId| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if n > 0 && n < best.len() {
        best.select_nth_unstable_by(n - 1, by_logit);
    }
    best.truncate(n);
    best.sort_by(by_logit);
    TokenLogprobs {
        logprob: logits.get(token as usize).map_or(f32::NEG_INFINITY, |logit| logit - normalizer),
        top: best.into_iter().map(|id| (id, logits[id as usize] - normalizer)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_come_best_first() {
        let result = logprobs(&[1.0, 3.0, 2.0], 2, 3);
        let sum: f32 = result.top.iter().map(|(_, lp)| lp.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(result.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), vec![1, 2, 0]);
        assert_eq!(result.logprob, result.top[1].1);
    }
}
