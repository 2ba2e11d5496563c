//! What a guest holds of a job.
// The generated bindings name these types as public ones.
#![allow(unreachable_pub)]

/// The job.
pub struct JobHandle;

/// A proposal under way.
pub struct PendingDraft {
    pub(crate) drafter: usize,
    pub(crate) waited: bool,
}

/// A verification under way.
pub struct PendingCommit {
    pub(crate) waited: bool,
}
