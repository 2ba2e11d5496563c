//! A loaded placement policy: a component that places the layers of a model on machines.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World, call_error,
};

use crate::bindings::placement_policy::PlacementPolicyPluginPre;
use crate::bindings::placement_policy::exports::tightwad::plugin::placement_policy as wit;
use crate::pooling::plan::{Machine, Plan, Refusal, Shape};

/// The maximum length of a refusal, in bytes. The host cuts longer refusals.
const MAX_REFUSAL_BYTES: usize = 1000;
/// The call's name in errors.
const PLACE_CALL: &str = "placement-policy.place";

/// A component that places layers. Each call gets an instance of its own.
pub struct PlacementPolicy {
    linked: LinkedComponent<PlacementPolicyPluginPre<State<()>>>,
}

#[async_trait]
impl Plugin for PlacementPolicy {
    const WORLD: World = World { interface: "placement-policy", wasi: false };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked =
            LinkedComponent::new((engine, name, compiled), linker, PlacementPolicyPluginPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &CompiledComponent) -> bool {
        true
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl PlacementPolicy {
    /// Places the layers of `shape` on `machines`. `previous` is the last plan of this model; its indices refer to
    /// `machines`. `previous` must be `None` if one of its machines is missing. The caller must check the plan before
    /// using it.
    ///
    /// # Errors
    ///
    /// Returns [`PluginError`] if the plugin trapped or exceeded a limit. A refusal is not an error of the plugin.
    pub async fn place(
        &self,
        shape: &Shape,
        machines: &[Machine],
        previous: Option<&Plan>,
    ) -> Result<Result<Plan, Refusal>, PluginError> {
        let machines: Vec<_> = machines.iter().map(Into::into).collect();
        let mut store = self.linked.store(0, ());
        let start = std::time::Instant::now();
        let call = async {
            let policy = self.linked.instance_pre.instantiate_async(&mut store).await?;
            let previous = previous.map(wit::Plan::from);
            let policy = policy.tightwad_plugin_placement_policy();
            policy.call_place(&mut store, &shape.into(), &machines, previous.as_ref()).await
        };
        let result = call.await;
        self.identity().counts().record(start.elapsed(), result.is_err());
        match result {
            Ok(Ok(plan)) if plan.assignments.len() > shape.layers.len() => {
                let (assignments, layers) = (plan.assignments.len(), shape.layers.len());
                let message = format!("its plan has {assignments} assignments for {layers} layers");
                Err(self.linked.failed(PLACE_CALL, &message))
            }
            Ok(placement) => Ok(placement.map(Into::into).map_err(Into::into)),
            Err(error) => Err(call_error(PLACE_CALL, &error, store.data())),
        }
    }
}

/// Conversions between the host's types and the generated types.
mod convert {
    use tightwad_core::printable;

    use super::MAX_REFUSAL_BYTES;
    use crate::bindings::placement_policy::exports::tightwad::plugin::placement_policy as wit;
    use crate::pooling::plan::{Assignment, Layer, Machine, Plan, Refusal, Shape, Shortage};

    impl From<&Shape> for wit::Shape {
        fn from(shape: &Shape) -> Self {
            let layer = |layer: &Layer| wit::Layer { weights: layer.weights, cache: layer.cache };
            Self {
                layers: shape.layers.iter().map(layer).collect(),
                output: shape.output,
                logits: shape.logits,
                activations: shape.activations,
                compute_buffer: shape.compute_buffer,
                output_buffer: shape.output_buffer,
            }
        }
    }

    impl From<&Machine> for wit::Machine {
        fn from(machine: &Machine) -> Self {
            Self {
                name: machine.name.clone(),
                memory: machine.memory,
                memory_bandwidth: machine.memory_bandwidth,
                link_bandwidth: machine.link_bandwidth,
                round_trip: machine.round_trip_ns,
                is_host: machine.is_host,
                max_layers: machine.max_layers,
            }
        }
    }

    impl From<&Plan> for wit::Plan {
        fn from(plan: &Plan) -> Self {
            let assignment = |assignment: &Assignment| wit::Assignment {
                machine: assignment.machine,
                layers: assignment.layers,
            };
            Self {
                assignments: plan.assignments.iter().map(assignment).collect(),
                output_on_host: plan.output_on_host,
                time_per_token: plan.time_per_token_ns,
            }
        }
    }

    impl From<wit::Plan> for Plan {
        fn from(plan: wit::Plan) -> Self {
            let assignment = |assignment: wit::Assignment| Assignment {
                machine: assignment.machine,
                layers: assignment.layers,
            };
            Self {
                assignments: plan.assignments.into_iter().map(assignment).collect(),
                output_on_host: plan.output_on_host,
                time_per_token_ns: plan.time_per_token,
            }
        }
    }

    impl From<wit::Refusal> for Refusal {
        fn from(refusal: wit::Refusal) -> Self {
            match refusal {
                wit::Refusal::TooBig(shortage) => {
                    Self::TooBig(Shortage { missing: shortage.missing, fits: shortage.fits })
                }
                wit::Refusal::Other(text) => Self::Other(printable(&text, MAX_REFUSAL_BYTES)),
            }
        }
    }
}
