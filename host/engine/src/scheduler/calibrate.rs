//! How far apart batched and one-token passes round, measured when a model is loaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tightwad_core::TokenId;

use crate::error::{LoadError, SessionError};
use crate::scheduler::context::{Context, Row};
use crate::scheduler::stats::Stats;

/// Tokens compared; more than 8, from where on many kernels take another path.
pub(crate) const TOKENS: usize = 9;
/// The measured difference is one of few tokens: real ones may be this much larger.
const MARGIN: f32 = 4.0;

/// The greatest difference in a logit, with a margin; 0 where passes are equal bit by bit.
pub(crate) fn tie_threshold(context: &mut Context<'_>, slots: u32, stats: &Stats) -> Result<f32, LoadError> {
    measure(context, slots, stats).map_err(|error| LoadError::Runtime(error.to_string()))
}

fn measure(context: &mut Context<'_>, slots: u32, stats: &Stats) -> Result<f32, SessionError> {
    let vocabulary = context.vocabulary;
    let tokens: Vec<TokenId> = (1..=TOKENS as u32).map(|n| n.wrapping_mul(7919) % vocabulary).collect();
    let row = |slot: usize, position: usize| Row { slot, position, token: tokens[position], logits: true };
    let mut single = Vec::new();
    for position in 0..TOKENS {
        let start = Instant::now();
        context.pass(&[row(0, position)])?;
        // The last one is warm.
        store(&stats.token_nanoseconds, start.elapsed());
        single.push(context.logits(0).to_vec());
    }
    context.clear(0);
    let mut greatest = 0.0_f32;
    // The last length is measured warm: its graph, and the memory for it, are there by then.
    for used in [slots.min(4) as usize, 1, 1] {
        let rows: Vec<Row> = (0..used)
            .flat_map(|slot| (0..TOKENS).map(move |position| (slot, position)))
            .map(|(s, p)| row(s, p))
            .collect();
        let start = Instant::now();
        context.pass(&rows)?;
        store(&stats.row_nanoseconds, start.elapsed() / u32::try_from(rows.len()).unwrap_or(1));
        for (index, row) in rows.iter().enumerate() {
            let differences =
                context.logits(index).iter().zip(&single[row.position]).map(|(a, b)| (a - b).abs());
            greatest = differences.fold(greatest, f32::max);
        }
        (0..used).for_each(|slot| context.clear(slot));
    }
    Ok(greatest * MARGIN)
}

fn store(place: &AtomicU64, time: Duration) {
    place.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
}
