//! What the next forward pass computes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scheduler::context::{MAX_ROWS, Row};
use crate::scheduler::sequence::Sequence;

/// How long a pass with a piece of a prompt in it should take: others go on, and a cancelled
/// sequence is freed, no later than that.
const TICK: Duration = Duration::from_millis(50);
/// Fewest rows of a prompt in one pass.
const FEWEST: usize = 8;

/// One sequence's part of a pass.
pub(crate) struct Planned {
    pub id: u64,
    pub step: Step,
}

/// What the part is for.
pub(crate) enum Step {
    /// That many tokens of the prompt are evaluated.
    Prefill { rows: usize },
    /// A token is chosen from the logits of `row` on; `rows` are this sequence's.
    Token { row: usize, rows: usize },
}

/// How long rows take here, and whose turn it is when not all fit.
pub(crate) struct Pace {
    seconds_a_row: f64,
    next: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { seconds_a_row: TICK.as_secs_f64() / 32.0, next: 0 }
    }
}

impl Pace {
    /// Notes a pass of `rows` rows.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration) {
        if rows >= FEWEST {
            let seconds = took.as_secs_f64() / rows as f64;
            self.seconds_a_row += 0.2 * (seconds - self.seconds_a_row);
        }
    }

    /// Rows that fit into one tick.
    fn rows(&self) -> usize {
        ((TICK.as_secs_f64() / self.seconds_a_row.max(1e-9)) as usize).clamp(FEWEST, MAX_ROWS)
    }
}

/// Fills `rows` with the work that is ready: first everything that ends in a token, then pieces of
/// prompts. A position that is decided again has the pass for itself.
pub(crate) fn plan(running: &BTreeMap<u64, Sequence>, pace: &mut Pace, rows: &mut Vec<Row>) -> Vec<Planned> {
    let ready = || running.iter().filter(|(_, sequence)| sequence.work.is_some());
    // Where the state had to be evaluated again, that comes first: all but the last token.
    let again = |sequence: &&Sequence| sequence.partial.is_some() && sequence.pending() == 1;
    if let Some((id, sequence)) = ready().find(|(_, sequence)| again(sequence)) {
        rows.extend(sequence.rows(sequence.slot, 1, &[]));
        return vec![Planned { id: *id, step: Step::Token { row: 0, rows: 1 } }];
    }
    let mut planned = Vec::new();
    for (id, sequence) in tokens(running, pace) {
        planned.push(token(id, sequence, rows));
    }
    let mut budget = pace.rows().saturating_sub(rows.len()).max(FEWEST).min(MAX_ROWS - rows.len());
    for (id, sequence) in ready() {
        if budget == 0 {
            break;
        }
        if sequence.is_next() {
            continue;
        }
        let before = rows.len();
        planned.push(prefill(*id, sequence, budget, rows));
        budget -= rows.len() - before;
    }
    planned
}

/// What `sequence` has to do, in a pass of its own.
pub(crate) fn plan_one(id: u64, sequence: &Sequence, rows: &mut Vec<Row>) -> Planned {
    if sequence.is_next() { token(id, sequence, rows) } else { prefill(id, sequence, MAX_ROWS, rows) }
}

/// The rows of a sequence that gets a token.
fn token(id: u64, sequence: &Sequence, rows: &mut Vec<Row>) -> Planned {
    let before = rows.len();
    for (slot, draft) in sequence.parts() {
        rows.extend(sequence.rows(slot, sequence.pending(), draft));
    }
    let row = before + sequence.pending() - 1;
    Planned { id, step: Step::Token { row, rows: rows.len() - before } }
}

/// At most `most` rows of a sequence that has more to evaluate first.
fn prefill(id: u64, sequence: &Sequence, most: usize, rows: &mut Vec<Row>) -> Planned {
    let count = (sequence.pending() - 1).min(most);
    rows.extend(sequence.rows(sequence.slot, count, &[]));
    Planned { id, step: Step::Prefill { rows: count } }
}

/// The sequences that get a token in this pass: as many as fit, whoever did not fit last time first; in
/// the order of their slots, because llama.cpp computes only neighbours in that order together.
fn tokens<'a>(running: &'a BTreeMap<u64, Sequence>, pace: &mut Pace) -> Vec<(u64, &'a Sequence)> {
    let ready = running.iter().filter(|(_, sequence)| sequence.is_next());
    let (after, before): (Vec<_>, Vec<_>) = ready.partition(|(id, _)| **id >= pace.next);
    let (mut chosen, mut used) = (Vec::new(), 0);
    for (id, sequence) in after.into_iter().chain(before) {
        used += sequence.parts().map(|(_, draft)| sequence.pending() + draft.len()).sum::<usize>();
        if used > MAX_ROWS {
            pace.next = *id;
            break;
        }
        chosen.push((*id, sequence));
    }
    chosen.sort_by_key(|(_, sequence)| sequence.slot);
    chosen
}
