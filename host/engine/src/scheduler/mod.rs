//! The thread that owns a llama.cpp context.
//!
//! Each pass merges the ready work of all sequences into one batch. Work that ends in a token (decodes,
//! proposals, verifications) comes first, then chunks of prompts. The chunks are so small that a pass stays
//! short. Other sequences then wait less, and a cancelled sequence is freed soon.

use crate::scheduler::command::Command;
use crate::scheduler::stats::Stats;

pub(crate) mod batch_cost;
pub(crate) mod begin;
pub(crate) mod calibrate;
pub(crate) mod checkpoints;
pub(crate) mod command;
pub(crate) mod context;
pub(crate) mod event_loop;
pub(crate) mod heads;
pub(crate) mod plan;
pub(crate) mod propose;
pub(crate) mod queue;
pub(crate) mod recovery;
pub(crate) mod recurrent;
pub(crate) mod rows;
pub(crate) mod score;
pub(crate) mod sequence;
pub(crate) mod slots;
pub(crate) mod stats;
pub(crate) mod think_time;
pub(crate) mod verify;
pub(crate) mod verify_context;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use crate::config::EngineConfig;
use crate::error::LoadError;
use crate::scheduler::context::BatchContext;
use crate::scheduler::event_loop::EngineState;
use crate::scheduler::queue::Sequences;
use crate::sizing::RollbackMemory;
use crate::weights::Weights;

/// Runs until all sessions and all handles of the engine are dropped.
pub(crate) fn run(
    weights: &Arc<Weights>,
    config: &EngineConfig,
    rollback: RollbackMemory,
    command_rx: Receiver<Command>,
    ready_tx: &SyncSender<Result<f32, LoadError>>,
    stats: &Arc<Stats>,
) {
    let mut context = match BatchContext::new(weights, config, rollback) {
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
        let rebuild = || BatchContext::new(weights, config, rollback);
        let (stats, restart_backoff) = (stats.clone(), recovery::RESTART_BACKOFF);
        recovery::run(context, rebuild, &mut EngineState { sequences, command_rx, stats, restart_backoff });
    }
}
