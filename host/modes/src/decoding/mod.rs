//! A request that a component drives token by token: what speculation and consensus share.

pub(crate) mod component;
pub(crate) mod driven;
pub(crate) mod handles;
pub(crate) mod host;
pub(crate) mod job;
pub(crate) mod race;
pub(crate) mod seat;
pub(crate) mod totals;
