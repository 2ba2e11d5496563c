//! Runs WebAssembly components within limits. This crate contains no mode.
//!
//! A [`World`] names the interface that components of one kind export. A mode links a component with the mode's own
//! host functions, and stores its own data in the store's [`State`]. A [`Library`] finds and reloads the plugins of
//! its [`Kind`]s.

pub mod bindings;
mod cache_folder;
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
mod linked_component;
mod log;
mod plugin;
mod reloadable;
mod state;
mod store;
mod world;

pub use contract::CompiledComponent;
pub use counts::CallCounts;
pub use engine::PluginEngine;
pub use error::PluginError;
pub use inspect::{ListedPlugin, PluginDescription, inspect, list};
pub use kind::{BuiltIn, Kind};
pub use library::Library;
pub use limits::{Limits, with_timeout};
pub use linked_component::{Identity, LinkedComponent};
pub use plugin::Plugin;
pub use reloadable::ReloadablePlugin;
pub use state::State;
pub use store::call_error;
pub use world::World;
