//! The WebAssembly engine that all plugins share.

use std::path::Path;
use std::thread;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::bindings::ExactMode;
use super::limits::{Limits, TICK};
use super::state::State;

/// Compiles and instantiates components; one a process.
pub struct PluginEngine {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    pub(super) limits: Limits,
}

impl PluginEngine {
    /// Sets up the engine. `cache`: a folder for compiled components, so that a plugin is compiled
    /// once and not at every start.
    ///
    /// # Errors
    ///
    /// What wasmtime says when this machine cannot run it.
    pub fn new(cache: Option<&Path>, limits: Limits) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true);
        let mut pool = PoolingAllocationConfig::default();
        pool.max_memory_size(limits.memory);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        if let Some(folder) = cache {
            let mut settings = CacheConfig::new();
            settings.with_directory(folder);
            config.cache(Some(Cache::new(settings)?));
        }
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        ExactMode::add_to_linker::<State, HasSelf<State>>(&mut linker, |state| state)?;
        tick(&engine)?;
        Ok(Self { engine, linker, limits })
    }
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
