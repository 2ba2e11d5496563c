//! Plans the rows of the next forward pass.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::scheduler::rows::{MAX_ROWS, Row};
use crate::scheduler::sequence::Sequence;

/// Target duration of a pass with prefill rows. This target bounds the delay of other sequences and the time
/// until a cancelled sequence is freed.
const TARGET_PASS_TIME: Duration = Duration::from_millis(50);
/// The minimum number of prefill rows in a pass.
const MIN_PREFILL_ROWS: usize = 8;

/// The part of one sequence in a pass.
pub(crate) struct PlannedStep {
    pub id: u64,
    pub step: Step,
}

/// The purpose of a part.
pub(crate) enum Step {
    /// Evaluates `rows` tokens of the prompt.
    Prefill { rows: usize },
    /// Chooses tokens from the logits of `row` on. The sequence has `rows` rows in the pass.
    Token { row: usize, rows: usize },
}

/// The token budget: the number of rows that a pass may have, and the sequence that comes first if not all
/// sequences fit.
pub(crate) struct TokenBudget {
    seconds_per_row: f64,
    next_id: u64,
    /// True if the last pass of a model with recurrent layers was for tokens.
    had_tokens: bool,
}

impl Default for TokenBudget {
    fn default() -> Self {
        Self { seconds_per_row: TARGET_PASS_TIME.as_secs_f64() / 32.0, next_id: 0, had_tokens: false }
    }
}

impl TokenBudget {
    /// Records the duration of a pass of `rows` rows.
    pub(crate) fn record_pass(&mut self, rows: usize, elapsed: Duration) {
        if rows >= MIN_PREFILL_ROWS {
            let seconds = elapsed.as_secs_f64() / rows as f64;
            self.seconds_per_row += 0.2 * (seconds - self.seconds_per_row);
        }
    }

    /// The number of rows that fit the target duration.
    fn max_rows(&self) -> usize {
        ((TARGET_PASS_TIME.as_secs_f64() / self.seconds_per_row.max(1e-9)) as usize)
            .clamp(MIN_PREFILL_ROWS, MAX_ROWS)
    }
}

/// Fills `rows` with the ready work: first all work that ends in a token, then chunks of prompts. A tied
/// position has a pass of its own. Leaves out sequences that took part in a panic: they get passes of their own.
pub(crate) fn plan(
    running: &BTreeMap<u64, Sequence>,
    budget: &mut TokenBudget,
    rows: &mut Vec<Row>,
) -> Vec<PlannedStep> {
    let ready = || running.iter().filter(|(_, sequence)| sequence.work.is_some());
    // A tied sequence may first have to evaluate its state again (recurrent layers). The sequence gets its
    // own pass once only its last token is pending.
    if let Some((id, sequence)) = ready().find(|(_, sequence)| sequence.is_tied()) {
        rows.extend(sequence.rows(sequence.slot, 1, &[]));
        return vec![PlannedStep { id: *id, step: Step::Token { row: 0, rows: 1 } }];
    }
    if ready().any(|(_, sequence)| sequence.is_recurrent) {
        return plan_recurrent(running, budget, rows);
    }
    let mut planned = Vec::new();
    for (id, sequence) in select_token_sequences(running, budget) {
        planned.push(plan_token(id, sequence, rows));
    }
    let mut remaining =
        budget.max_rows().saturating_sub(rows.len()).max(MIN_PREFILL_ROWS).min(MAX_ROWS - rows.len());
    for (id, sequence) in ready() {
        if remaining == 0 {
            break;
        }
        if sequence.wants_token() || sequence.panics > 0 {
            continue;
        }
        let before = rows.len();
        planned.push(plan_prefill(*id, sequence, remaining, rows));
        remaining -= rows.len() - before;
    }
    planned
}

/// Plans a pass of a model with recurrent layers: either tokens, or a part of one prompt, in turns. llama.cpp evaluates
/// only consecutive slots with the same number of rows together. The snapshots of one such group may become wrong with
/// the next group, so a pass has one.
fn plan_recurrent(
    running: &BTreeMap<u64, Sequence>,
    budget: &mut TokenBudget,
    rows: &mut Vec<Row>,
) -> Vec<PlannedStep> {
    let mut prompts = running
        .iter()
        .filter(|(_, sequence)| sequence.work.is_some() && !sequence.wants_token() && sequence.panics == 0);
    let selected = select_token_sequences(running, budget);
    if let Some((id, sequence)) = prompts.next().filter(|_| budget.had_tokens || selected.is_empty()) {
        budget.had_tokens = false;
        return vec![plan_prefill(*id, sequence, budget.max_rows(), rows)];
    }
    budget.had_tokens = true;
    let group = select_equal_rows(&selected, budget);
    group.iter().map(|(id, sequence)| plan_token(*id, sequence, rows)).collect()
}

/// The sequences of `selected`, in the order of slots, that have consecutive slots and as many rows as the one that comes
/// first.
fn select_equal_rows<'a, 's>(
    selected: &'a [(u64, &'s Sequence)],
    budget: &mut TokenBudget,
) -> &'a [(u64, &'s Sequence)] {
    let row_count = |sequence: &Sequence| {
        sequence.slot_drafts().map(|(_, draft)| sequence.pending_tokens() + draft.len()).sum::<usize>()
    };
    let first = selected.iter().enumerate().min_by_key(|(_, (id, _))| (*id < budget.next_id, *id));
    let Some((first, (id, _))) = first else { return selected };
    budget.next_id = id + 1;
    let mut groups = selected.chunk_by(|(_, before), (_, after)| {
        before.slot + 1 == after.slot && row_count(before) == row_count(after)
    });
    let mut end = 0;
    let group = groups.find(|group| {
        end += group.len();
        first < end
    });
    group.unwrap_or_default()
}

/// Plans the work of `sequence` for a pass of its own.
pub(crate) fn plan_alone(id: u64, sequence: &Sequence, rows: &mut Vec<Row>) -> PlannedStep {
    if sequence.wants_token() {
        plan_token(id, sequence, rows)
    } else {
        plan_prefill(id, sequence, MAX_ROWS, rows)
    }
}

/// Adds the rows of a sequence that gets a token.
fn plan_token(id: u64, sequence: &Sequence, rows: &mut Vec<Row>) -> PlannedStep {
    let before = rows.len();
    for (slot, draft) in sequence.slot_drafts() {
        rows.extend(sequence.rows(slot, sequence.pending_tokens(), draft));
    }
    let row = before + sequence.pending_tokens() - 1;
    PlannedStep { id, step: Step::Token { row, rows: rows.len() - before } }
}

/// Adds at most `max_rows` prefill rows of a sequence.
fn plan_prefill(id: u64, sequence: &Sequence, max_rows: usize, rows: &mut Vec<Row>) -> PlannedStep {
    let count = sequence.prefill_rows(max_rows);
    rows.extend(sequence.rows(sequence.slot, count, &[]));
    PlannedStep { id, step: Step::Prefill { rows: count } }
}

/// Selects the sequences that get a token in this pass, as many as fit. A sequence that did not fit the last
/// pass comes first. The result is in the order of slots, because llama.cpp computes only consecutive slots
/// together.
fn select_token_sequences<'a>(
    running: &'a BTreeMap<u64, Sequence>,
    budget: &mut TokenBudget,
) -> Vec<(u64, &'a Sequence)> {
    let ready = running.iter().filter(|(_, sequence)| sequence.wants_token() && sequence.panics == 0);
    let (from_next, before_next): (Vec<_>, Vec<_>) = ready.partition(|(id, _)| **id >= budget.next_id);
    let (mut selected, mut used_rows) = (Vec::new(), 0);
    for (id, sequence) in from_next.into_iter().chain(before_next) {
        used_rows +=
            sequence.slot_drafts().map(|(_, draft)| sequence.pending_tokens() + draft.len()).sum::<usize>();
        if used_rows > MAX_ROWS {
            budget.next_id = *id;
            break;
        }
        selected.push((*id, sequence));
    }
    selected.sort_by_key(|(_, sequence)| sequence.slot);
    selected
}
