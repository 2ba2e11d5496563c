//! Measures at load time how much the logits of batched and one-token passes differ.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tightwad_core::TokenId;

use crate::error::{LoadError, SessionError};
use crate::scheduler::context::BatchContext;
use crate::scheduler::rows::Row;
use crate::scheduler::stats::Stats;

/// Tokens that the passes compare. Many kernels take another path above 8 rows.
pub(crate) const CALIBRATION_TOKENS: usize = 9;
/// The measurement covers few tokens. Real differences can be larger by this factor.
const SAFETY_FACTOR: f32 = 4.0;

/// The greatest difference in a logit, times [`SAFETY_FACTOR`]; 0 if the passes agree bit for bit.
pub(crate) fn tie_threshold(
    context: &mut BatchContext<'_>,
    slots: u32,
    stats: &Stats,
) -> Result<f32, LoadError> {
    measure(context, slots, stats).map_err(|error| LoadError::Runtime(error.to_string()))
}

fn measure(context: &mut BatchContext<'_>, slots: u32, stats: &Stats) -> Result<f32, SessionError> {
    let vocabulary = context.vocabulary;
    let tokens: Vec<TokenId> =
        (1..=CALIBRATION_TOKENS as u32).map(|n| n.wrapping_mul(7919) % vocabulary).collect();
    let row = |slot: usize, position: usize| Row { slot, position, token: tokens[position], logits: true };
    let mut single = Vec::new();
    for position in 0..CALIBRATION_TOKENS {
        let start = Instant::now();
        context.forward(&[row(0, position)])?;
        // Only the time of the last pass counts: the model is warm by then.
        store(&stats.time_per_token_ns, start.elapsed());
        single.push(context.logits(0).to_vec());
    }
    context.clear(0);
    let mut max_difference = 0.0_f32;
    // Only the time of the last pass counts: its graph and its buffers exist by then.
    for slot_count in [slots.min(4) as usize, 1, 1] {
        let rows: Vec<Row> = (0..slot_count)
            .flat_map(|slot| (0..CALIBRATION_TOKENS).map(move |position| (slot, position)))
            .map(|(s, p)| row(s, p))
            .collect();
        let start = Instant::now();
        context.forward(&rows)?;
        store(&stats.time_per_row_ns, start.elapsed() / u32::try_from(rows.len()).unwrap_or(1));
        for (index, row) in rows.iter().enumerate() {
            let differences =
                context.logits(index).iter().zip(&single[row.position]).map(|(a, b)| (a - b).abs());
            max_difference = differences.fold(max_difference, f32::max);
        }
        (0..slot_count).for_each(|slot| context.clear(slot));
    }
    Ok(max_difference * SAFETY_FACTOR)
}

fn store(counter: &AtomicU64, time: Duration) {
    counter.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
