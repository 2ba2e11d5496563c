//! The kinds of plugins that a host loads.

use std::pin::Pin;
use std::sync::Arc;

use crate::contract::Compiled;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::loaded::Loaded;
use crate::world::World;

/// A built-in plugin: its name and its component.
pub type BuiltIn = (&'static str, &'static [u8]);

type Described<'a> = Pin<Box<dyn Future<Output = Result<String, PluginError>> + Send + 'a>>;

/// A kind of plugin, with its built-in ones.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What it is for.
    pub world: World,
    /// Loaded exactly as a file is.
    pub built_in: &'static [BuiltIn],
    pub(crate) describe: for<'a> fn(&'a Arc<PluginEngine>, &'a str, &'a Compiled) -> Described<'a>,
    pub(crate) is_exact: fn(&Compiled) -> bool,
}

impl Kind {
    /// The kind of the plugin type `P`.
    #[must_use]
    pub const fn of<P: Loaded>(built_in: &'static [BuiltIn]) -> Self {
        Self {
            world: P::WORLD,
            built_in,
            describe: |engine, name, compiled| {
                Box::pin(async move { Ok(P::link(engine, name, compiled).await?.label().to_owned()) })
            },
            is_exact: P::is_exact,
        }
    }
}
