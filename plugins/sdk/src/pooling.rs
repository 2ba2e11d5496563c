//! Writing a pooling plugin: the world `placement`.

pub use crate::placement::exports::tightwad::plugin::pooling::{
    Layer, Machine, Plan, Refusal, Shape, Share, Shortage,
};

/// A policy that places one model's layers over machines.
pub trait Pooling {
    /// Short name, as scripts and metrics show it.
    const NAME: &'static str;
    /// Semantic version.
    const VERSION: &'static str;

    /// Places the layers of `shape` on `machines`. The host checks the plan before it uses it.
    ///
    /// `before` is the plan of the last time, its indices those of this `machines`: what a machine had
    /// need not be sent to it again. It may fit no longer.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says how much memory is missing, or what else is in the way.
    fn place(shape: &Shape, machines: &[Machine], before: Option<&Plan>) -> Result<Plan, Refusal>;
}

/// Exports a type that implements [`Pooling`] as this component's policy.
#[macro_export]
macro_rules! export_pooling {
    ($pooling:ty) => {
        struct ExportedPooling;

        impl $crate::placement::exports::tightwad::plugin::pooling::Guest for ExportedPooling {
            fn describe() -> $crate::placement::exports::tightwad::plugin::pooling::Info {
                $crate::placement::exports::tightwad::plugin::pooling::Info {
                    name: <$pooling as $crate::Pooling>::NAME.into(),
                    version: <$pooling as $crate::Pooling>::VERSION.into(),
                }
            }

            fn place(
                shape: $crate::Shape,
                machines: Vec<$crate::Machine>,
                before: Option<$crate::Plan>,
            ) -> Result<$crate::Plan, $crate::Refusal> {
                $crate::install_panic_hook();
                <$pooling as $crate::Pooling>::place(&shape, &machines, before.as_ref())
            }
        }

        // Elsewhere the export's name is no symbol that a linker takes, and unit tests need none.
        #[cfg(target_arch = "wasm32")]
        $crate::__export_placement!(ExportedPooling with_types_in $crate::placement);
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(
            $crate::Shape,
            Vec<$crate::Machine>,
            Option<$crate::Plan>,
        ) -> Result<$crate::Plan, $crate::Refusal> =
            <ExportedPooling as $crate::placement::exports::tightwad::plugin::pooling::Guest>::place;
    };
}
