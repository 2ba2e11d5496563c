//! What one instance's store holds.
// The generated bindings name these types as public ones.
#![allow(unreachable_pub)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::limits::Meter;
use super::{Job, ReviewTask};

/// Bytes that are kept of a standard error.
const LONGEST: usize = 4096;

/// The store's data.
pub(super) struct State {
    pub name: String,
    pub table: ResourceTable,
    pub meter: Meter,
    /// Absent in calls that have no job.
    pub job: Option<Job>,
    /// The same of gates.
    pub task: Option<ReviewTask>,
    /// Counted while it lives.
    _alive: Alive,
    /// For runtimes that want one: no files, no sockets, no environment.
    wasi: Option<WasiCtx>,
    /// What such a runtime writes to its standard error: the message of an exception.
    stderr: MemoryOutputPipe,
    /// Bytes of it that are of earlier calls.
    heard: usize,
    /// The last error the component logged: a panic's message comes this way.
    pub last_words: Option<String>,
}

impl State {
    pub(super) fn new(name: &str, meter: Meter, alive: Alive) -> Self {
        Self {
            name: name.to_owned(),
            table: ResourceTable::new(),
            meter,
            job: None,
            task: None,
            _alive: alive,
            wasi: None,
            stderr: MemoryOutputPipe::new(LONGEST),
            heard: 0,
            last_words: None,
        }
    }
}

impl State {
    /// Gives an instance that is asked again what a new one has.
    pub(super) fn renew(&mut self) {
        self.meter.renew();
        self.last_words = None;
        self.heard = self.stderr.contents().len();
    }

    /// False once its standard error, which only grows, may not hold what the next call writes.
    pub(super) fn may_be_kept(&self) -> bool {
        self.stderr.contents().len() < LONGEST / 2
    }

    /// What the component said in this call, before it was stopped.
    pub(super) fn last_words(&self) -> Option<String> {
        let written = self.stderr.contents();
        let written =
            String::from_utf8_lossy(written.get(self.heard..).unwrap_or_default()).trim().to_owned();
        self.last_words.clone().or(Some(written)).filter(|words| !words.is_empty())
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let stderr = &self.stderr;
        let ctx = self.wasi.get_or_insert_with(|| WasiCtx::builder().stderr(stderr.clone()).build());
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// One instance that lives.
pub(super) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(super) fn count(instances: &Arc<AtomicUsize>) -> Self {
        instances.fetch_add(1, Ordering::Relaxed);
        Self(instances.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The guest's handle of the job.
pub struct JobHandle;

/// The guest's handle of a gate's task.
pub struct TaskHandle;

/// The guest's handle of a proposal under way.
pub struct PendingDraft {
    pub(super) drafter: usize,
    pub(super) waited: bool,
}

/// The guest's handle of a verification under way.
pub struct PendingCommit {
    pub(super) waited: bool,
}
