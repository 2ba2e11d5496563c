//! Consensus: drafters race, and a rule decides when the target need not be asked.

pub(crate) mod at_work;
pub(crate) mod auditor;
pub(crate) mod backend;
pub(crate) mod host;
pub(crate) mod policy;
pub(crate) mod skipping;
