//! The plugin host: WebAssembly components under limits. It knows no mode.
//!
//! A [`World`] names what components of one kind export. A mode links it with host functions of its own, and keeps
//! data of its own in the store's [`State`]. A [`Library`] finds and reloads the plugins of the [`Kind`]s that it is
//! given.

pub mod bindings;
mod clock;
mod contract;
mod counts;
mod describe;
mod engine;
mod error;
mod inspect;
mod kind;
mod library;
mod limits;
mod linked;
mod loaded;
mod log;
mod slot;
mod state;
mod store;
mod world;

pub use contract::Compiled;
pub use counts::CallCounts;
pub use engine::PluginEngine;
pub use error::PluginError;
pub use inspect::{Inspected, Listed, inspect, list};
pub use kind::{BuiltIn, Kind};
pub use library::Library;
pub use limits::{Limits, whatever_it_does};
pub use linked::{Identity, Linked};
pub use loaded::Loaded;
pub use slot::Slot;
pub use state::State;
pub use store::call_error;
pub use world::World;
