//! The quality gate: a fleet writes whole answers, and a reviewer approves, corrects or rejects them.

pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod component;
pub(crate) mod delivery;
pub(crate) mod generation_budget;
pub(crate) mod handles;
pub(crate) mod host;
pub(crate) mod judgement;
pub(crate) mod policy;
pub(crate) mod review;
