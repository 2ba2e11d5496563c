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
///
/// ```
/// use tightwad_plugin_sdk::{Layer, Machine, Plan, Pooling, Refusal, Shape, Share, export_pooling};
///
/// /// Places all layers on the machine with the most memory.
/// struct Largest;
///
/// impl Pooling for Largest {
///     const NAME: &'static str = "largest";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn place(shape: &Shape, machines: &[Machine], _before: Option<&Plan>) -> Result<Plan, Refusal> {
///         let largest = (0..).zip(machines).max_by_key(|(_, machine)| machine.memory);
///         let (machine, _) = largest.ok_or_else(|| Refusal::Other("there is no machine".into()))?;
///         let share = Share { machine, layers: shape.layers.len() as u32 };
///         Ok(Plan { shares: vec![share], output_here: true, token: 0 })
///     }
/// }
///
/// export_pooling!(Largest);
///
/// let machine = |memory| Machine {
///     name: "m".into(),
///     memory,
///     speed: 1,
///     bandwidth: 1,
///     round_trip: 1,
///     here: false,
///     max_layers: 8,
/// };
/// let shape = Shape {
///     layers: vec![Layer { weights: 1, cache: 1 }; 3],
///     output: 1,
///     logits: 1,
///     activations: 1,
///     scratch: 1,
///     head_scratch: 1,
/// };
/// let plan = Largest::place(&shape, &[machine(5), machine(9)], None).unwrap();
/// assert_eq!(plan.shares, [Share { machine: 1, layers: 3 }]);
/// assert!(Largest::place(&shape, &[], None).is_err());
/// ```
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
