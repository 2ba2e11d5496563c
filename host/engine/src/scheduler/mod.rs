//! The thread that owns a llama.cpp context.
//!
//! Each tick merges the ready work of all sequences into one batch: first everything that ends in
//! a token (decodes, proposals, verifications), then prompt chunks, sized so that a tick stays
//! short enough for the others to go on and for a cancelled sequence to be freed at once.

use crate::scheduler::command::Command;
use crate::scheduler::stats::Stats;

pub(crate) mod absence;
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
pub(crate) mod verify;
pub(crate) mod verify_context;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::config::EngineConfig;
use crate::error::LoadError;
use crate::scheduler::context::Context;
use crate::scheduler::queue::Sequences;
use crate::weights::Weights;

/// Longest wait for sessions that were just answered, so that batches stay merged: a pass without one of them
/// costs it a whole tick, and everyone a pass more.
const LINGER: Duration = Duration::from_millis(5);
/// The same, as a share of the tick before.
const LINGER_SHARE: f32 = 0.15;

/// Runs until every session and every handle of the engine is gone.
pub(crate) fn run(
    weights: &Arc<Weights>,
    config: &EngineConfig,
    inbox: Receiver<Command>,
    ready: &SyncSender<Result<f32, LoadError>>,
    stats: &Arc<Stats>,
) {
    let mut context = match Context::new(weights, config) {
        Ok(context) => context,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let measured = calibrate::tie_threshold(&mut context, config.slots, stats);
    let threshold = measured.map(|measured| config.tie_threshold.unwrap_or(measured));
    let loaded = threshold.clone();
    if ready.send(threshold).is_err() {
        return;
    }
    if let Ok(threshold) = loaded {
        let sequences = Sequences::new(weights.clone(), config, stats.clone(), threshold);
        Scheduler { context, sequences, inbox, last_tick: Duration::ZERO }.run();
    }
}

struct Scheduler<'a> {
    context: Context<'a>,
    sequences: Sequences,
    inbox: Receiver<Command>,
    last_tick: Duration,
}

impl Scheduler<'_> {
    fn run(&mut self) {
        while self.receive() {
            self.sequences.admit(&mut self.context);
            let start = Instant::now();
            if self.sequences.tick(&mut self.context) {
                self.last_tick = start.elapsed();
            }
        }
    }

    /// Takes every command that has come; blocks when there is nothing to do. False: all senders
    /// are gone.
    fn receive(&mut self) -> bool {
        if !self.sequences.has_work() {
            match self.inbox.recv() {
                Ok(command) => self.sequences.accept(command, &mut self.context),
                Err(_) => return false,
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            self.sequences.accept(command, &mut self.context);
        }
        self.linger();
        true
    }

    /// Waits for sessions that were just answered and usually come back soon.
    fn linger(&mut self) {
        let most = LINGER.min(self.last_tick.mul_f32(LINGER_SHARE));
        while self.sequences.has_work()
            && let Some(deadline) = self.sequences.expected(most)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inbox.recv_timeout(left) {
                Ok(command) => self.sequences.accept(command, &mut self.context),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
    }
}
