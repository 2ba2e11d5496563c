//! A model with its context and its thread.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::oneshot;

use crate::config::EngineConfig;
use crate::error::{LoadError, SessionError};
use crate::memory::Reservation;
use crate::open_session::OpenSession;
use crate::scheduler;
use crate::scheduler::command::{Command, Commands};
use crate::scheduler::stats::Stats;
use crate::session::Session;
use crate::sizing::Sizing;
use crate::weights::Weights;

/// A running model; cheap to clone. The thread ends when the last clone and session are gone.
#[derive(Clone)]
pub struct Engine {
    weights: Arc<Weights>,
    commands: Commands,
    stats: Arc<Stats>,
    sequences: Arc<AtomicU64>,
    config: EngineConfig,
    tie_threshold: f32,
    _reservation: Arc<Reservation>,
}

impl Engine {
    /// Loads the GGUF at `path` and starts its thread; blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what is wrong with the file or the configuration.
    pub fn load(path: &Path, config: EngineConfig) -> Result<Self, LoadError> {
        Self::start(Weights::load(path, config.gpu_layers)?, config)
    }

    /// Starts a thread for weights that are loaded; blocks until it was measured.
    ///
    /// # Errors
    ///
    /// [`LoadError`] when there is no memory for the sequences.
    pub fn start(weights: Arc<Weights>, mut config: EngineConfig) -> Result<Self, LoadError> {
        let sizing = Sizing::of(&weights, &config);
        (config.context, config.slots) = (sizing.context, sizing.slots);
        // What a GPU holds takes nothing of this machine's memory.
        let (own, caches) = if config.takes_turns() { weights.memory(sizing.cache_bytes) } else { (0, 0) };
        let reservation = Arc::new(Reservation::new(own, caches));
        if config.threads == 0 {
            config.threads = u32::try_from(crate::runtime::processors()).unwrap_or(1);
        }
        let (commands, inbox) = mpsc::channel();
        let (ready, started) = mpsc::sync_channel(1);
        let stats = Arc::new(Stats::default());
        let (held, counted, settings) = (weights.clone(), stats.clone(), config.clone());
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || scheduler::run(&held, &settings, inbox, &ready, &counted))
            .map_err(|error| LoadError::Runtime(error.to_string()))?;
        let gone = |_| LoadError::Runtime("its thread ended".to_owned());
        let tie_threshold = started.recv().map_err(gone)??;
        let sequences = Arc::new(AtomicU64::new(0));
        Ok(Self { weights, commands, stats, sequences, config, tie_threshold, _reservation: reservation })
    }

    /// The model.
    #[must_use]
    pub fn weights(&self) -> &Arc<Weights> {
        &self.weights
    }

    /// Tokens a sequence may have.
    #[must_use]
    pub fn context(&self) -> u32 {
        self.config.context
    }

    /// Sequences that run at once.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.config.slots
    }

    /// True when forward passes run on this machine's processor, where models take turns.
    #[must_use]
    pub fn takes_turns(&self) -> bool {
        self.config.takes_turns()
    }

    /// Counters, live.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Greatest difference in a logit between batched and one-token passes, with a margin,
    /// measured when the model was loaded. 0: the kernels do not depend on the batch, and no
    /// position is ever decided twice.
    #[must_use]
    pub fn tie_threshold(&self) -> f32 {
        self.tie_threshold
    }

    /// Opens a session; waits in the queue for a free sequence.
    ///
    /// # Errors
    ///
    /// [`SessionError::Overloaded`] when the queue is full, [`SessionError::TooLong`] before any
    /// work when the context is too small.
    pub async fn open(&self, open: OpenSession) -> Result<Session, SessionError> {
        self.check(&open)?;
        let waiting = self.stats.waiting.fetch_add(1, Ordering::AcqRel);
        if waiting >= self.config.queue + self.config.slots as usize {
            self.stats.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(SessionError::Overloaded { waiting });
        }
        let id = self.sequences.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(Command::Open { id, open: Box::new(open), reply });
        // From here on the session closes itself, also when this future is dropped.
        let mut session = Session { id, commands: self.commands.clone(), reused: 0 };
        sent.map_err(|_| SessionError::Stopped)?;
        session.reused = answer.await.map_err(|_| SessionError::Stopped)??;
        Ok(session)
    }

    fn check(&self, open: &OpenSession) -> Result<(), SessionError> {
        let prompt = u32::try_from(open.prompt.len()).unwrap_or(u32::MAX);
        if prompt == 0 {
            return Err(SessionError::EmptyPrompt);
        }
        let size = self.weights.vocabulary_size();
        if let Some(token) = open.prompt.iter().chain(&open.output).find(|token| **token >= size) {
            return Err(SessionError::UnknownToken(*token));
        }
        if !open.output.is_empty() && open.output.len() >= open.max_tokens as usize {
            return Err(SessionError::Finished);
        }
        let (context, generate) = (self.config.context, open.max_tokens);
        if prompt.saturating_add(generate) > context {
            return Err(SessionError::TooLong { context, prompt, generate });
        }
        Ok(())
    }
}
