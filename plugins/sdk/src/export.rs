//! The part that all export macros share.

/// Exports the interface `plugin` for a component.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_plugin {
    ($component:ident, $plugin:ty as $trait:ident) => {
        impl $crate::bindings::identity::exports::tightwad::plugin::plugin::Guest for $component {
            fn describe() -> $crate::bindings::identity::exports::tightwad::plugin::plugin::Info {
                $crate::bindings::identity::exports::tightwad::plugin::plugin::Info {
                    name: <$plugin as $crate::$trait>::NAME.into(),
                    version: <$plugin as $crate::$trait>::VERSION.into(),
                }
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::identity::__export_identity!($component with_types_in $crate::bindings::identity);
    };
}
