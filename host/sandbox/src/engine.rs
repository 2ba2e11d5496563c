//! The WebAssembly engine that all plugins share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::tightwad::plugin::log;
use crate::cache_folder;
use crate::limits::{EPOCH_INTERVAL, Limits};
use crate::state::State;
use crate::world::World;

/// Compiles and instantiates components. A process has one engine.
pub struct PluginEngine {
    pub(crate) engine: Engine,
    pub(crate) limits: Limits,
    /// The number of live instances.
    pub(crate) instances: Arc<AtomicUsize>,
}

impl PluginEngine {
    /// Creates the engine and starts its epoch thread. `cache` is a folder for compiled components: a plugin is then
    /// compiled once and not at every start.
    ///
    /// # Errors
    ///
    /// Returns wasmtime's error if this machine cannot run the engine.
    pub fn new(cache: Option<&Path>, limits: Limits) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(cache, limits)?)?;
        spawn_epoch_thread(&engine)?;
        Ok(Self { engine, limits, instances: Arc::default() })
    }

    /// Returns a linker with the imports of every component of `world`: the log, and an empty WASI context if
    /// `world.wasi` is true. Modes add their own interfaces.
    ///
    /// # Errors
    ///
    /// Returns wasmtime's error if a name is defined twice.
    pub fn linker<T: Send + 'static>(&self, world: World) -> wasmtime::Result<Linker<State<T>>> {
        let mut linker = Linker::new(&self.engine);
        log::add_to_linker::<State<T>, HasSelf<State<T>>>(&mut linker, |state| state)?;
        if world.wasi {
            wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        }
        Ok(linker)
    }

    /// The number of live instances, including idle ones that wait for their next call.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// True if only this user can write compiled components to the cache's `folder`. A compiled component is native code.
fn is_private(folder: &Path) -> bool {
    let private = cache_folder::make_private(folder);
    if let Err(reason) = &private {
        let folder = folder.display();
        tracing::warn!(
            "{folder} is not used as the cache of compiled plugins: {reason}. Plugins are compiled at each start."
        );
    }
    private.is_ok()
}

fn config(cache: Option<&Path>, limits: Limits) -> wasmtime::Result<Config> {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true);
    let mut pool = PoolingAllocationConfig::default();
    pool.max_memory_size(limits.memory_bytes.max(limits.policy_memory_bytes));
    pool.total_component_instances(limits.instances);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    if let Some(folder) = cache.filter(|folder| is_private(folder)) {
        let mut settings = CacheConfig::new();
        settings.with_directory(folder);
        config.cache(Some(Cache::new(settings)?));
    }
    Ok(config)
}

/// Starts a thread that increments the epoch until the engine is dropped. The epoch interrupts components.
fn spawn_epoch_thread(engine: &Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            // This thread exists to sleep, so it blocks nothing else.
            #[allow(clippy::disallowed_methods)]
            thread::sleep(EPOCH_INTERVAL);
        }
    };
    thread::Builder::new().name("plugin-clock".to_owned()).spawn(run)?;
    Ok(())
}
