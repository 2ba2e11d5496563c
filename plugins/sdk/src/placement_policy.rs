//! Placement policies: the world `placement-policy-plugin`.

pub use crate::bindings::placement_policy::exports::tightwad::plugin::placement_policy::{
    Assignment, Layer, Machine, Plan, Refusal, Shape, Shortage,
};

/// A policy that places the layers of one model on machines.
///
/// ```
/// use tightwad_plugin_sdk::{
///     Assignment, Layer, Machine, PlacementPolicy, Plan, Refusal, Shape, export_placement_policy,
/// };
///
/// /// Places all layers on the machine with the most memory.
/// struct Largest;
///
/// impl PlacementPolicy for Largest {
///     const NAME: &'static str = "largest";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///
///     fn place(shape: &Shape, machines: &[Machine], _previous: Option<&Plan>) -> Result<Plan, Refusal> {
///         let usable = (0..).zip(machines).filter(|(_, machine)| machine.max_layers as usize >= shape.layers.len());
///         let largest = usable.max_by_key(|(_, machine)| machine.memory);
///         let (machine, _) = largest.ok_or_else(|| Refusal::Other("no machine may hold all layers".into()))?;
///         let assignment = Assignment { machine, layers: shape.layers.len() as u32 };
///         Ok(Plan { assignments: vec![assignment], output_on_host: false, time_per_token: 0 })
///     }
/// }
///
/// export_placement_policy!(Largest);
///
/// let machine = |memory| Machine {
///     name: "m".into(),
///     memory,
///     memory_bandwidth: 5_000_000_000,
///     link_bandwidth: 100_000_000,
///     round_trip: 200_000,
///     is_host: false,
///     max_layers: 8,
/// };
/// let shape = Shape {
///     layers: vec![Layer { weights: 1, cache: 1 }; 3],
///     output: 1,
///     logits: 1,
///     activations: 1,
///     compute_buffer: 1,
///     output_buffer: 1,
/// };
/// let plan = Largest::place(&shape, &[machine(50), machine(90)], None).unwrap();
/// assert_eq!(plan.assignments, [Assignment { machine: 1, layers: 3 }]);
/// assert!(Largest::place(&shape, &[], None).is_err());
/// ```
pub trait PlacementPolicy {
    /// Short name, as logs, reports and metrics show it.
    const NAME: &'static str;
    /// Semantic version of the plugin.
    const VERSION: &'static str;

    /// Places the layers of `shape` on `machines`. The host checks the plan before it uses it.
    ///
    /// `previous` is the plan by which the model was placed last; its indices refer to `machines`. A machine that keeps
    /// its layers need not receive them again. The plan may no longer fit.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooBig`] with the missing memory, or [`Refusal::Other`] with the reason and what to change.
    fn place(shape: &Shape, machines: &[Machine], previous: Option<&Plan>) -> Result<Plan, Refusal>;
}

/// Exports a type that implements [`PlacementPolicy`](crate::PlacementPolicy) as this component's policy.
#[macro_export]
macro_rules! export_placement_policy {
    ($policy:ty) => {
        struct ExportedPolicy;

        $crate::__export_plugin!(ExportedPolicy, $policy as PlacementPolicy);

        impl $crate::bindings::placement_policy::exports::tightwad::plugin::placement_policy::Guest
            for ExportedPolicy
        {
            fn place(
                shape: $crate::Shape,
                machines: Vec<$crate::Machine>,
                previous: Option<$crate::Plan>,
            ) -> Result<$crate::Plan, $crate::Refusal> {
                $crate::install_panic_hook();
                <$policy as $crate::PlacementPolicy>::place(&shape, &machines, previous.as_ref())
            }
        }

        // On other targets a linker rejects the export's name, and unit tests do not need the export.
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::placement_policy::__export_placement_policy!(
            ExportedPolicy with_types_in $crate::bindings::placement_policy
        );
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn(
            $crate::Shape,
            Vec<$crate::Machine>,
            Option<$crate::Plan>,
        ) -> Result<$crate::Plan, $crate::Refusal> =
            <ExportedPolicy as $crate::bindings::placement_policy::exports::tightwad::plugin::placement_policy::Guest>::place;
    };
}
