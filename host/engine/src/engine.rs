//! A model with its context and its thread.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tightwad_core::{Proposal, TokenId};
use tokio::sync::oneshot;

use crate::config::EngineConfig;
use crate::error::{LoadError, SessionError};
use crate::memory::Reservation;
use crate::scheduler;
use crate::scheduler::command::{Command, CommandSender, HeadRequest};
use crate::scheduler::stats::Stats;
use crate::session::Session;
use crate::session_params::SessionParams;
use crate::sizing::Sizing;
use crate::weights::Weights;

/// A running model; cheap to clone. Its thread ends with the last clone and session.
#[derive(Clone)]
pub struct Engine {
    weights: Arc<Weights>,
    commands: CommandSender,
    stats: Arc<Stats>,
    next_id: Arc<AtomicU64>,
    config: EngineConfig,
    tie_threshold: f32,
    _reservation: Arc<Reservation>,
}

impl Engine {
    /// Loads the GGUF file at `path` and starts the engine's thread; blocks until both are done.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the file or the configuration is unusable.
    pub fn load(path: &Path, config: EngineConfig) -> Result<Self, LoadError> {
        Self::start(Weights::load(path, config.gpu_layers)?, config)
    }

    /// Starts a thread for loaded weights; blocks until the calibration ends.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if the sequences do not fit into memory.
    pub fn start(weights: Arc<Weights>, mut config: EngineConfig) -> Result<Self, LoadError> {
        let sizing = Sizing::for_model(&weights, &config);
        (config.context, config.slots) = (sizing.context, sizing.slots);
        // Weights and caches on a GPU use no memory of this machine.
        let (weight_bytes, cache_bytes) =
            if config.shares_cpu() { weights.local_memory(sizing.cache_bytes) } else { (0, 0) };
        let reservation = Arc::new(Reservation::new(weight_bytes, cache_bytes));
        if config.threads == 0 {
            config.threads = u32::try_from(crate::runtime::cpu_count()).unwrap_or(1);
        }
        let (commands, command_rx) = mpsc::channel();
        let (ready_tx, ready_rx) = mpsc::sync_channel(1);
        let stats = Arc::new(Stats::default());
        let (thread_weights, thread_stats, thread_config) = (weights.clone(), stats.clone(), config.clone());
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let rollback = sizing.rollback;
                scheduler::run(
                    &thread_weights,
                    &thread_config,
                    rollback,
                    command_rx,
                    &ready_tx,
                    &thread_stats,
                )
            })
            .map_err(|error| LoadError::Runtime(error.to_string()))?;
        let thread_ended = |_| LoadError::Runtime("the engine's thread ended".to_owned());
        let tie_threshold = ready_rx.recv().map_err(thread_ended)??;
        let next_id = Arc::new(AtomicU64::new(0));
        Ok(Self { weights, commands, stats, next_id, config, tie_threshold, _reservation: reservation })
    }

    /// The model.
    #[must_use]
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Context length of a sequence in tokens.
    #[must_use]
    pub fn context(&self) -> u32 {
        self.config.context
    }

    /// Number of sequences that run at the same time.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// True if forward passes run on this machine's CPU. On the CPU, models compute one at a time.
    #[must_use]
    pub fn shares_cpu(&self) -> bool {
        self.config.shares_cpu()
    }

    /// Live counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// The configured tie threshold. Otherwise the measured logit difference between batched and one-token
    /// passes, with a safety factor. 0: the kernels are row-invariant, and every position is decided once.
    #[must_use]
    pub fn tie_threshold(&self) -> f32 {
        self.tie_threshold
    }

    /// Opens a session; waits in the queue for a free slot.
    ///
    /// # Errors
    ///
    /// [`SessionError::Overloaded`] if the queue is full, [`SessionError::TooLong`] if prompt and output do
    /// not fit the context.
    pub async fn open(&self, params: SessionParams) -> Result<Session, SessionError> {
        self.check_params(&params)?;
        let queued = self.stats.queued_requests.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.check_queue_length(queued) {
            self.stats.queued_requests.fetch_sub(1, Ordering::AcqRel);
            return Err(error);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (reply, reply_rx) = oneshot::channel();
        let sent = self.commands.send(Command::Open { id, params: Box::new(params), reply });
        // From here on, the session closes itself on drop, even if the caller drops this future.
        let mut session = Session { id, commands: self.commands.clone(), reused_tokens: 0 };
        sent.map_err(|_| SessionError::Stopped)?;
        session.reused_tokens = reply_rx.await.map_err(|_| SessionError::Stopped)??;
        Ok(session)
    }

    /// Makes the model's draft heads follow all passes from now on, so that [`Self::propose_with_heads`] can use them.
    /// Does nothing for a model without heads.
    pub fn enable_heads(&self) {
        // Without its thread, the engine fails each later call.
        let _ = self.commands.send(Command::EnableHeads);
    }

    /// Proposes up to `max` tokens with the model's draft heads, after an open session that has `prompt` and `output`.
    /// Stops before a token that is less probable than `min_probability` or that ends the turn. Empty if there is no such
    /// session, or if the heads have not seen its last token.
    ///
    /// # Errors
    ///
    /// [`SessionError::Stopped`] if the engine has stopped; errors of the engine.
    pub async fn propose_with_heads(
        &self,
        prompt: Arc<[TokenId]>,
        output: Vec<TokenId>,
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, SessionError> {
        let (reply, reply_rx) = oneshot::channel();
        let request = HeadRequest { prompt, output, max, min_probability, reply };
        self.commands.send(Command::ProposeWithHeads(request)).map_err(|_| SessionError::Stopped)?;
        reply_rx.await.map_err(|_| SessionError::Stopped)?
    }

    /// Checks that the queue has room, before any work for a request.
    ///
    /// # Errors
    ///
    /// [`SessionError::Overloaded`] if the queue is full.
    pub(crate) fn check_queue(&self) -> Result<(), SessionError> {
        self.check_queue_length(self.stats.queued_requests())
    }

    fn check_queue_length(&self, queued: usize) -> Result<(), SessionError> {
        if queued < self.config.max_queue + self.config.slots as usize {
            Ok(())
        } else {
            Err(SessionError::Overloaded { waiting: queued })
        }
    }

    fn check_params(&self, params: &SessionParams) -> Result<(), SessionError> {
        let prompt = u32::try_from(params.prompt.len()).unwrap_or(u32::MAX);
        if prompt == 0 {
            return Err(SessionError::EmptyPrompt);
        }
        let vocabulary_size = self.weights.vocabulary_size();
        if let Some(token) =
            params.prompt.iter().chain(&params.output).find(|token| **token >= vocabulary_size)
        {
            return Err(SessionError::UnknownToken(*token));
        }
        let biases = &params.sampling.logit_bias;
        if let Some((token, _)) = biases.iter().find(|(token, _)| *token >= vocabulary_size) {
            return Err(SessionError::UnknownBias { token: *token, vocabulary_size });
        }
        if !params.output.is_empty() && params.output.len() >= params.max_tokens as usize {
            return Err(SessionError::Finished);
        }
        let (context, generate) = (self.config.context, params.max_tokens);
        if prompt.saturating_add(generate) > context {
            return Err(SessionError::TooLong { context, prompt, generate });
        }
        Ok(())
    }
}
