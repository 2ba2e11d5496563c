//! Placement: a component decides which machine holds which layers of a model.

pub(crate) mod component;
pub(crate) mod plan;
