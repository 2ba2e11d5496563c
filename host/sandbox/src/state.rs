//! The data of one instance's store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::limits::{Limits, MAX_RESOURCES, ResourceMeter};

/// The bytes of standard error that the host stores per instance.
const MAX_STDERR_BYTES: usize = 4096;

/// The data of an instance's store. `T` is the data of a mode for its host functions.
pub struct State<T> {
    /// The mode's data.
    pub data: T,
    /// The resources that the instance holds.
    pub table: ResourceTable,
    /// The plugin's name and version.
    pub(crate) label: String,
    pub(crate) meter: ResourceMeter,
    _live: LiveInstance,
    /// The WASI context of a language runtime, without files, sockets or environment variables.
    wasi: Option<WasiCtx>,
    /// The standard error of a language runtime, such as the message of an exception. The pipe is never emptied.
    stderr: MemoryOutputPipe,
    /// The bytes of `stderr` that earlier calls wrote.
    earlier_stderr_bytes: usize,
    /// The last log line of level `error` in this call. The message of a panic arrives this way.
    pub(crate) last_error_line: Option<String>,
    /// The number of log lines in this call.
    pub(crate) log_lines: u32,
}

impl<T> State<T> {
    pub(crate) fn new(label: &str, meter: ResourceMeter, live: LiveInstance, data: T) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);
        Self {
            data,
            table,
            label: label.to_owned(),
            meter,
            _live: live,
            wasi: None,
            stderr: MemoryOutputPipe::new(MAX_STDERR_BYTES),
            earlier_stderr_bytes: 0,
            last_error_line: None,
            log_lines: 0,
        }
    }

    /// A state without a component, for tests of host functions.
    pub fn without_component(label: &str, limits: Limits, data: T) -> Self {
        Self::new(label, ResourceMeter::new(limits, 0), LiveInstance::count(&Arc::default()), data)
    }

    /// The plugin's name and version, as in errors and logs.
    pub fn plugin_label(&self) -> &str {
        &self.label
    }

    /// Counts a host call. Every host function calls this method first.
    ///
    /// # Errors
    ///
    /// Returns an error if the instance has no host calls left.
    pub fn count_call(&mut self) -> wasmtime::Result<()> {
        self.meter.count_call()
    }

    /// The linear memory in use.
    pub fn memory_bytes(&self) -> usize {
        self.meter.memory_bytes()
    }

    /// Prepares the instance for its next call, which gets the limits of a new instance.
    pub fn reset(&mut self) {
        self.meter.reset();
        self.last_error_line = None;
        self.log_lines = 0;
        self.earlier_stderr_bytes = self.stderr.contents().len();
    }

    /// True if standard error has room for the output of another call.
    pub fn is_reusable(&self) -> bool {
        self.stderr.contents().len() < MAX_STDERR_BYTES / 2
    }

    /// The last error that the component reported in this call: its last log line of level `error`, otherwise its
    /// standard error.
    pub(crate) fn last_error(&self) -> Option<String> {
        let stderr = self.stderr.contents();
        let stderr = stderr.get(self.earlier_stderr_bytes..).unwrap_or_default();
        let stderr = String::from_utf8_lossy(stderr).trim().to_owned();
        self.last_error_line.clone().or(Some(stderr)).filter(|message| !message.is_empty())
    }
}

impl<T: Send> WasiView for State<T> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let stderr = &self.stderr;
        let ctx = self.wasi.get_or_insert_with(|| WasiCtx::builder().stderr(stderr.clone()).build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// Counts one live instance until it is dropped.
pub(crate) struct LiveInstance(Arc<AtomicUsize>);

impl LiveInstance {
    pub(crate) fn count(instances: &Arc<AtomicUsize>) -> Self {
        instances.fetch_add(1, Ordering::Relaxed);
        Self(instances.clone())
    }
}

impl Drop for LiveInstance {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
