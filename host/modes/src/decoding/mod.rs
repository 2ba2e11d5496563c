//! A request that a component drives token by token: the common part of speculation and consensus.

pub(crate) mod component;
pub(crate) mod drafter_slot;
pub(crate) mod driven_target;
pub(crate) mod handles;
pub(crate) mod host;
pub(crate) mod job;
pub(crate) mod race;
pub(crate) mod totals;
