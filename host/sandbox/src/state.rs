//! What one instance's store holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::limits::{Limits, Meter};

/// Bytes that are kept of a standard error.
const LONGEST: usize = 4096;

/// The data of an instance's store; `T` is what a mode keeps there for its host functions.
pub struct State<T> {
    /// What the mode keeps for the call.
    pub data: T,
    /// The resources that the instance holds.
    pub table: ResourceTable,
    /// Name and version of the plugin.
    pub(crate) name: String,
    pub(crate) meter: Meter,
    /// Counted while it lives.
    _alive: Alive,
    /// For runtimes that want one: no files, no sockets, no environment.
    wasi: Option<WasiCtx>,
    /// What such a runtime writes to its standard error: the message of an exception.
    stderr: MemoryOutputPipe,
    /// Bytes of it that are of earlier calls.
    heard: usize,
    /// The last error the component logged: a panic's message comes this way.
    pub(crate) last_words: Option<String>,
}

impl<T> State<T> {
    pub(crate) fn new(name: &str, meter: Meter, alive: Alive, data: T) -> Self {
        Self {
            data,
            table: ResourceTable::new(),
            name: name.to_owned(),
            meter,
            _alive: alive,
            wasi: None,
            stderr: MemoryOutputPipe::new(LONGEST),
            heard: 0,
            last_words: None,
        }
    }

    /// A state without a component, for tests of host functions.
    pub fn detached(name: &str, limits: Limits, data: T) -> Self {
        Self::new(name, Meter::new(limits, 0), Alive::count(&Arc::default()), data)
    }

    /// Name and version of the plugin, as errors and logs show them.
    pub fn plugin(&self) -> &str {
        &self.name
    }

    /// Counts a host call. Every host function begins with it.
    ///
    /// # Errors
    ///
    /// The instance has used up its host calls.
    pub fn count_call(&mut self) -> wasmtime::Result<()> {
        self.meter.call()
    }

    /// Linear memory in use, in bytes.
    pub fn memory(&self) -> usize {
        self.meter.memory()
    }

    /// Gives an instance that is asked again what a new one has.
    pub fn renew(&mut self) {
        self.meter.renew();
        self.last_words = None;
        self.heard = self.stderr.contents().len();
    }

    /// False once its standard error, which only grows, may not hold what the next call writes.
    pub fn may_be_kept(&self) -> bool {
        self.stderr.contents().len() < LONGEST / 2
    }

    /// What the component said in this call, before it was stopped.
    pub(crate) fn last_words(&self) -> Option<String> {
        let written = self.stderr.contents();
        let written =
            String::from_utf8_lossy(written.get(self.heard..).unwrap_or_default()).trim().to_owned();
        self.last_words.clone().or(Some(written)).filter(|words| !words.is_empty())
    }
}

impl<T: Send> WasiView for State<T> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let stderr = &self.stderr;
        let ctx = self.wasi.get_or_insert_with(|| WasiCtx::builder().stderr(stderr.clone()).build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// One instance that lives.
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn count(instances: &Arc<AtomicUsize>) -> Self {
        instances.fetch_add(1, Ordering::Relaxed);
        Self(instances.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
