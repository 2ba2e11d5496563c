//! The thread that owns a llama.cpp context.
//!
//! Each pass merges the ready work of all sequences into one batch. Work that ends in a token (decodes,
//! proposals, verifications) comes first, then chunks of prompts. The chunks are so small that a pass stays
//! short. Other sequences then wait less, and a cancelled sequence is freed soon.

use crate::scheduler::command::Command;
use crate::scheduler::stats::Stats;

pub(crate) mod batch_cost;
pub(crate) mod calibrate;
pub(crate) mod command;
pub(crate) mod context;
pub(crate) mod plan;
pub(crate) mod propose;
pub(crate) mod queue;
pub(crate) mod rows;
pub(crate) mod score;
pub(crate) mod sequence;
pub(crate) mod slots;
pub(crate) mod stats;
pub(crate) mod think_time;
pub(crate) mod verify;
pub(crate) mod verify_context;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::config::EngineConfig;
use crate::error::LoadError;
use crate::scheduler::context::BatchContext;
use crate::scheduler::queue::Sequences;
use crate::weights::Weights;

/// The maximum batching window: the wait for sessions that have just received a reply. A session that misses
/// a pass loses the time of a whole pass, and all sequences pay for one more pass.
const MAX_BATCHING_WINDOW: Duration = Duration::from_millis(5);
/// The maximum batching window as a share of the last pass.
const BATCHING_WINDOW_SHARE: f32 = 0.15;

/// Runs until all sessions and all handles of the engine are dropped.
pub(crate) fn run(
    weights: &Arc<Weights>,
    config: &EngineConfig,
    command_rx: Receiver<Command>,
    ready_tx: &SyncSender<Result<f32, LoadError>>,
    stats: &Arc<Stats>,
) {
    let mut context = match BatchContext::new(weights, config) {
        Ok(context) => context,
        Err(error) => {
            let _ = ready_tx.send(Err(error));
            return;
        }
    };
    let measured = calibrate::tie_threshold(&mut context, config.slots, stats);
    let threshold = measured.map(|measured| config.tie_threshold.unwrap_or(measured));
    let result = threshold.clone();
    if ready_tx.send(threshold).is_err() {
        return;
    }
    if let Ok(threshold) = result {
        let sequences = Sequences::new(weights.clone(), config, stats.clone(), threshold);
        Scheduler { context, sequences, command_rx, last_pass_time: Duration::ZERO }.run();
    }
}

struct Scheduler<'a> {
    context: BatchContext<'a>,
    sequences: Sequences,
    command_rx: Receiver<Command>,
    last_pass_time: Duration,
}

impl Scheduler<'_> {
    fn run(&mut self) {
        while self.receive() {
            self.sequences.admit(&mut self.context);
            let start = Instant::now();
            if self.sequences.run_pass(&mut self.context) {
                self.last_pass_time = start.elapsed();
            }
        }
    }

    /// Handles all commands that have arrived; blocks if there is no work. Returns false if all senders are
    /// dropped.
    fn receive(&mut self) -> bool {
        if !self.sequences.has_work() {
            match self.command_rx.recv() {
                Ok(command) => self.sequences.handle_command(command, &mut self.context),
                Err(_) => return false,
            }
        }
        while let Ok(command) = self.command_rx.try_recv() {
            self.sequences.handle_command(command, &mut self.context);
        }
        self.wait_for_sessions();
        true
    }

    /// Keeps the batching window open for sessions that have just received a reply and usually return soon.
    fn wait_for_sessions(&mut self) {
        let window = MAX_BATCHING_WINDOW.min(self.last_pass_time.mul_f32(BATCHING_WINDOW_SHARE));
        while self.sequences.has_work()
            && let Some(deadline) = self.sequences.batching_deadline(window)
        {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match self.command_rx.recv_timeout(remaining) {
                Ok(command) => self.sequences.handle_command(command, &mut self.context),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
    }
}
