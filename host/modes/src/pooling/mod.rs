//! Placement: a component says which layers of a model go to which machine.

pub(crate) mod component;
pub(crate) mod plan;
