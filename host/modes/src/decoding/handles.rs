//! The resources that a guest holds while it drives a job.
// The generated bindings require public types.
#![allow(unreachable_pub)]

/// The job.
pub struct JobHandle;

/// A draft in progress.
pub struct PendingDraft {
    pub(crate) drafter: usize,
    pub(crate) waited: bool,
}

/// A verification in progress.
pub struct PendingCommit {
    pub(crate) waited: bool,
}
