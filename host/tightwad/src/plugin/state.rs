//! What one instance's store holds.
// The generated bindings name these types as public ones.
#![allow(unreachable_pub)]

use wasmtime::component::ResourceTable;

use super::Job;
use super::limits::Meter;

/// The store's data.
pub(super) struct State {
    pub name: String,
    pub table: ResourceTable,
    pub meter: Meter,
    /// Absent in calls that have no job.
    pub job: Option<Job>,
    /// The last error the component logged: a panic's message comes this way.
    pub last_words: Option<String>,
}

impl State {
    pub(super) fn new(name: &str, meter: Meter, job: Option<Job>) -> Self {
        Self { name: name.to_owned(), table: ResourceTable::new(), meter, job, last_words: None }
    }
}

/// The guest's handle of the job.
pub struct JobHandle;

/// The guest's handle of a proposal under way.
pub struct PendingDraft {
    pub(super) drafter: usize,
    pub(super) waited: bool,
}

/// The guest's handle of a verification under way.
pub struct PendingCommit {
    pub(super) waited: bool,
}
