//! The WebAssembly engine that all plugins share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bindings::gating::Gating;
use super::bindings::picking::Picking;
use super::bindings::tightwad::plugin::{ballots, clock, decoding, log};
use super::bindings::verdicts::Verdicts;
use super::bindings::voting::Voting;
use super::bindings::{ApproximateMode, placement::Placement};
use super::limits::{Limits, TICK};
use super::state::State;

/// Compiles and instantiates components; one a process.
pub struct PluginEngine {
    pub(super) engine: Engine,
    /// What exact modes may import.
    pub(super) exact: Linker<State>,
    /// What approximate modes may import besides.
    pub(super) approximate: Linker<State>,
    /// What consensus policies may import; and WASI with nothing in it, for runtimes that need one.
    pub(super) voting: Linker<State>,
    /// What gates may import.
    pub(super) gating: Linker<State>,
    /// What gate policies may import; and WASI as above.
    pub(super) verdicts: Linker<State>,
    /// What pooling policies may import.
    pub(super) placement: Linker<State>,
    /// What swarm policies may import.
    pub(super) picking: Linker<State>,
    pub(super) limits: Limits,
    /// Stores that live.
    pub(super) instances: Arc<AtomicUsize>,
}

impl PluginEngine {
    /// Sets up the engine. `cache`: a folder for compiled components, so that a plugin is compiled
    /// once and not at every start.
    ///
    /// # Errors
    ///
    /// What wasmtime says when this machine cannot run it.
    pub fn new(cache: Option<&Path>, limits: Limits) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(cache, limits)?)?;
        tick(&engine)?;
        let linker = || Linker::new(&engine);
        let (mut exact, mut approximate) = (linker(), linker());
        ballots::add_to_linker::<State, HasSelf<State>>(&mut exact, |state| state)?;
        clock::add_to_linker::<State, HasSelf<State>>(&mut exact, |state| state)?;
        decoding::add_to_linker::<State, HasSelf<State>>(&mut exact, |state| state)?;
        log::add_to_linker::<State, HasSelf<State>>(&mut exact, |state| state)?;
        ApproximateMode::add_to_linker::<State, HasSelf<State>>(&mut approximate, |state| state)?;
        let (mut voting, mut gating, mut verdicts) = (linker(), linker(), linker());
        let (mut placement, mut picking) = (linker(), linker());
        Voting::add_to_linker::<State, HasSelf<State>>(&mut voting, |state| state)?;
        wasmtime_wasi::p2::add_to_linker_async(&mut voting)?;
        Gating::add_to_linker::<State, HasSelf<State>>(&mut gating, |state| state)?;
        Verdicts::add_to_linker::<State, HasSelf<State>>(&mut verdicts, |state| state)?;
        wasmtime_wasi::p2::add_to_linker_async(&mut verdicts)?;
        Placement::add_to_linker::<State, HasSelf<State>>(&mut placement, |state| state)?;
        Picking::add_to_linker::<State, HasSelf<State>>(&mut picking, |state| state)?;
        let instances = Arc::default();
        Ok(Self {
            engine,
            exact,
            approximate,
            voting,
            gating,
            verdicts,
            placement,
            picking,
            limits,
            instances,
        })
    }

    /// Instances that live, those that wait for their next call included.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// How components are compiled and instantiated.
fn config(cache: Option<&Path>, limits: Limits) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true);
    let mut pool = PoolingAllocationConfig::default();
    pool.max_memory_size(limits.memory.max(limits.policy_memory));
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    if let Some(folder) = cache {
        let mut settings = CacheConfig::new();
        settings.with_directory(folder);
        config.cache(Some(Cache::new(settings)?));
    }
    Ok(config)
}

/// Drives the clock that interrupts components, for as long as the engine lives.
fn tick(engine: &Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            // A thread of its own, where sleeping is what it is for.
            #[allow(clippy::disallowed_methods)]
            thread::sleep(TICK);
        }
    };
    thread::Builder::new().name("plugin-clock".to_owned()).spawn(run)?;
    Ok(())
}
