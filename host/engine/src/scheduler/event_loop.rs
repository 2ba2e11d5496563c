//! The loop of the engine's thread: it receives commands and runs passes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tightwad_core::Backoff;

use crate::scheduler::command::Command;
use crate::scheduler::context::BatchContext;
use crate::scheduler::queue::Sequences;
use crate::scheduler::stats::Stats;

/// The maximum batching window: the wait for sessions that have just received a reply. A session that misses
/// a pass loses the time of a whole pass, and all sequences pay for one more pass.
const MAX_BATCHING_WINDOW: Duration = Duration::from_millis(5);
/// The maximum batching window as a share of the last pass.
const BATCHING_WINDOW_SHARE: f32 = 0.15;

/// The state of an engine that survives a panic.
pub(crate) struct EngineState {
    pub sequences: Sequences,
    pub command_rx: Receiver<Command>,
    pub stats: Arc<Stats>,
    pub restart_backoff: Backoff,
}

/// Runs passes with one context.
pub(crate) struct Scheduler<'s, 'w> {
    context: BatchContext<'w>,
    sequences: &'s mut Sequences,
    command_rx: &'s Receiver<Command>,
    last_pass_time: Duration,
}

impl<'s, 'w> Scheduler<'s, 'w> {
    pub(crate) fn new(context: BatchContext<'w>, state: &'s mut EngineState) -> Self {
        let EngineState { sequences, command_rx, .. } = state;
        Self { context, sequences, command_rx, last_pass_time: Duration::ZERO }
    }

    /// Runs until all sessions and all handles of the engine are dropped.
    pub(crate) fn run(&mut self) {
        self.sequences.start_recovered(&mut self.context);
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
