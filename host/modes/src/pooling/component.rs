//! A loaded pooling policy: it says where the layers of a model go.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_sandbox::{
    Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World, call_error,
};

use crate::bindings::placement::PlacementPre;
use crate::bindings::placement::exports::tightwad::plugin::pooling as wit;
use crate::pooling::plan::{Machine, Plan, Refusal, Shape};

const PLACE: &str = "pooling.place";

/// A component that places layers; compiled and linked, to be instantiated for each question.
pub struct PlacementPlugin {
    linked: Linked<PlacementPre<State<()>>>,
}

#[async_trait]
impl Loaded for PlacementPlugin {
    const WORLD: World = World { interface: "pooling", describe: "pooling.describe", wasi: false };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked = Linked::new((engine, name, compiled), linker, PlacementPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &Compiled) -> bool {
        true
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl PlacementPlugin {
    /// Asks a new instance where the layers of `shape` go. `before` is the plan of the last time, its
    /// indices those of `machines`; leave it out where one of its machines is missing. The plan is the
    /// plugin's word: check it before carrying it out.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when the plugin trapped or broke a limit. That it refuses is an answer.
    pub async fn place(
        &self,
        shape: &Shape,
        machines: &[Machine],
        before: Option<&Plan>,
    ) -> Result<Result<Plan, Refusal>, PluginError> {
        let machines: Vec<_> = machines.iter().map(Into::into).collect();
        let mut store = self.linked.store(0, ());
        let start = std::time::Instant::now();
        let answer = async {
            let policy = self.linked.instance.instantiate_async(&mut store).await?;
            let before = before.map(wit::Plan::from);
            let policy = policy.tightwad_plugin_pooling();
            policy.call_place(&mut store, &shape.into(), &machines, before.as_ref()).await
        };
        let answer = answer.await;
        self.identity().counts().note(start.elapsed(), answer.is_err());
        match answer {
            Ok(answer) => Ok(answer.map(Into::into).map_err(Into::into)),
            Err(error) => Err(call_error(PLACE, &error, store.data())),
        }
    }
}

/// Between the host's types and the generated ones.
mod convert {
    use crate::bindings::placement::exports::tightwad::plugin::pooling as wit;
    use crate::pooling::plan::{Layer, Machine, Plan, Refusal, Shape, Share, Shortage};

    impl From<&Shape> for wit::Shape {
        fn from(shape: &Shape) -> Self {
            let layer = |layer: &Layer| wit::Layer { weights: layer.weights, cache: layer.cache };
            Self {
                layers: shape.layers.iter().map(layer).collect(),
                output: shape.output,
                logits: shape.logits,
                activations: shape.activations,
                scratch: shape.scratch,
                head_scratch: shape.head_scratch,
            }
        }
    }

    impl From<&Machine> for wit::Machine {
        fn from(machine: &Machine) -> Self {
            Self {
                name: machine.name.clone(),
                memory: machine.memory,
                speed: machine.speed,
                bandwidth: machine.bandwidth,
                round_trip: machine.round_trip,
                here: machine.here,
                max_layers: machine.max_layers,
            }
        }
    }

    impl From<&Plan> for wit::Plan {
        fn from(plan: &Plan) -> Self {
            let share = |share: &Share| wit::Share { machine: share.machine, layers: share.layers };
            Self {
                shares: plan.shares.iter().map(share).collect(),
                output_here: plan.output_here,
                token: plan.token,
            }
        }
    }

    impl From<wit::Plan> for Plan {
        fn from(plan: wit::Plan) -> Self {
            let share = |share: wit::Share| Share { machine: share.machine, layers: share.layers };
            Self {
                shares: plan.shares.into_iter().map(share).collect(),
                output_here: plan.output_here,
                token: plan.token,
            }
        }
    }

    impl From<wit::Refusal> for Refusal {
        fn from(refusal: wit::Refusal) -> Self {
            match refusal {
                wit::Refusal::TooBig(shortage) => {
                    Self::TooBig(Shortage { missing: shortage.missing, fits: shortage.fits })
                }
                wit::Refusal::Other(text) => Self::Other(text),
            }
        }
    }
}
