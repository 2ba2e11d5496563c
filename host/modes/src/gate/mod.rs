//! The quality gate: a fleet writes whole answers; a reviewer approves, corrects or rejects.

pub(crate) mod backend;
pub(crate) mod cache;
pub(crate) mod component;
pub(crate) mod handles;
pub(crate) mod host;
pub(crate) mod judgement;
pub(crate) mod passing;
pub(crate) mod policy;
pub(crate) mod review;
