//! Filling a store from many peers.

pub(crate) mod drive;
pub(crate) mod event;
pub(crate) mod fetch;
pub(crate) mod limits;
pub(crate) mod meter;
pub(crate) mod order;
pub(crate) mod report;
pub(crate) mod scheduler;
pub(crate) mod sources;
pub(crate) mod start;
pub(crate) mod transfers;
pub(crate) mod watch;
pub(crate) mod work;
