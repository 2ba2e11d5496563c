//! Consensus: drafters race, and a rule decides which of their tokens the target does not verify.

pub(crate) mod auditor;
pub(crate) mod backend;
pub(crate) mod grant;
pub(crate) mod host;
pub(crate) mod policy;
pub(crate) mod policy_handle;
