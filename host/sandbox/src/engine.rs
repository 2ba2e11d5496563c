//! The WebAssembly engine that all plugins share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::tightwad::plugin::log;
use crate::limits::{Limits, TICK};
use crate::state::State;
use crate::world::World;

/// Compiles and instantiates components; one a process.
pub struct PluginEngine {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    /// Stores that live.
    pub(crate) instances: Arc<AtomicUsize>,
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
        Ok(Self { engine, limits, instances: Arc::default() })
    }

    /// A linker with what every component of `world` may import: its log, and WASI with nothing in it where the
    /// world has that. Modes add their own interfaces.
    ///
    /// # Errors
    ///
    /// wasmtime's: a name was defined twice.
    pub fn linker<T: Send + 'static>(&self, world: World) -> wasmtime::Result<Linker<State<T>>> {
        let mut linker = Linker::new(&self.engine);
        log::add_to_linker::<State<T>, HasSelf<State<T>>>(&mut linker, |state| state)?;
        if world.wasi {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        }
        Ok(linker)
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
