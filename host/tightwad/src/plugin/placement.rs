//! A loaded pooling policy: it says where the layers of a model go.

use std::sync::Arc;

use super::bindings::placement::PlacementPre;
use super::bindings::placement::exports::tightwad::plugin::pooling as wit;
use super::contract::Kind;
use super::limits::Meter;
use super::state::State;
use super::{PluginEngine, PluginError, contract, store};
use crate::types::pool::{Machine, Plan, Refusal, Shape};

const PLACE: &str = "pooling.place";
const DESCRIBE: &str = "pooling.describe";

/// A component that places layers; compiled and linked, to be instantiated for each question.
pub struct PlacementPlugin {
    engine: Arc<PluginEngine>,
    instance: PlacementPre<State>,
    /// Name and version, as errors and reports show them.
    label: String,
    sha256: String,
}

impl PlacementPlugin {
    /// Compiles and links a component; `name` is what errors call it until it has said its own.
    ///
    /// # Errors
    ///
    /// [`PluginError`] when it is no component, does not fit the contract, or cannot describe
    /// itself.
    pub async fn load(engine: &Arc<PluginEngine>, name: &str, wasm: &[u8]) -> Result<Self, PluginError> {
        let compiled = contract::compile_as(engine, name, wasm, Kind::Placement).await?;
        let linked = engine.placement.instantiate_pre(&compiled.component).and_then(PlacementPre::new);
        let instance = linked.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let mut plugin =
            Self { engine: engine.clone(), instance, label: name.to_owned(), sha256: compiled.sha256 };
        plugin.label = plugin.describe().await?;
        Ok(plugin)
    }

    /// Name and version.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// SHA-256 of the component, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

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
        let meter = Meter::new(self.engine.limits, 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let answer = async {
            let policy = self.instance.instantiate_async(&mut store).await?;
            let before = before.map(wit::Plan::from);
            let policy = policy.tightwad_plugin_pooling();
            policy.call_place(&mut store, &shape.into(), &machines, before.as_ref()).await
        };
        match answer.await {
            Ok(answer) => Ok(answer.map(Into::into).map_err(Into::into)),
            Err(error) => Err(store::error(PLACE, &error, store.data())),
        }
    }

    async fn describe(&self) -> Result<String, PluginError> {
        let meter = Meter::new(self.engine.limits, 0);
        let mut store = store::open(&self.engine, &self.label, meter, None);
        let outcome = async {
            let policy = self.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_pooling().call_describe(&mut store).await
        };
        match outcome.await {
            Ok(info) => Ok(format!("{}@{}", info.name, info.version)),
            Err(error) => Err(store::error(DESCRIBE, &error, store.data())),
        }
    }
}

/// Between the host's types and the generated ones.
mod convert {
    use super::wit;
    use crate::types::pool::{Layer, Machine, Plan, Refusal, Shape, Share, Shortage};

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
