//! Pulls: fill a store from many peers.

pub(crate) mod driver;
pub(crate) mod event;
pub(crate) mod fetch;
pub(crate) mod limits;
pub(crate) mod order;
pub(crate) mod peer_table;
pub(crate) mod piece_blocks;
pub(crate) mod progress_meter;
pub(crate) mod report;
pub(crate) mod scheduler;
pub(crate) mod start;
pub(crate) mod transfers;
pub(crate) mod watch;
