//! The kinds of plugins that a host loads.

use std::pin::Pin;
use std::sync::Arc;

use crate::contract::CompiledComponent;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::plugin::Plugin;
use crate::world::World;

/// The name and the component of a built-in plugin.
pub type BuiltIn = (&'static str, &'static [u8]);

type LabelFuture<'a> = Pin<Box<dyn Future<Output = Result<String, PluginError>> + Send + 'a>>;

/// A kind of plugin, with its built-in plugins.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The world of the components.
    pub world: World,
    /// The built-in plugins. The host loads built-in plugins like files.
    pub built_in: &'static [BuiltIn],
    /// Links a component and returns its label.
    pub(crate) describe: for<'a> fn(&'a Arc<PluginEngine>, &'a str, &'a CompiledComponent) -> LabelFuture<'a>,
    pub(crate) is_exact: fn(&CompiledComponent) -> bool,
}

impl Kind {
    /// The kind of the plugin type `P`.
    #[must_use]
    pub const fn of<P: Plugin>(built_in: &'static [BuiltIn]) -> Self {
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
