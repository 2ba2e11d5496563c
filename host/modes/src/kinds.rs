//! The kinds of plugins, and those that are built in.

use tightwad_sandbox::Kind;

use crate::consensus::policy::PolicyPlugin;
use crate::decoding::component::Plugin;
use crate::gate::component::GatePlugin;
use crate::gate::policy::GatePolicyPlugin;
use crate::pooling::component::PlacementPlugin;
use crate::swarm::component::SwarmPlugin;

/// Every kind of plugin, with its built-in ones.
pub const KINDS: &[Kind] = &[
    Kind::of::<Plugin>(&[
        ("speculation", include_bytes!("../../../plugins/dist/speculation.wasm")),
        ("consensus", include_bytes!("../../../plugins/dist/consensus.wasm")),
    ]),
    Kind::of::<PolicyPlugin>(&[]),
    Kind::of::<GatePlugin>(&[("gate", include_bytes!("../../../plugins/dist/gate.wasm"))]),
    Kind::of::<GatePolicyPlugin>(&[]),
    Kind::of::<PlacementPlugin>(&[("pooling", include_bytes!("../../../plugins/dist/pooling.wasm"))]),
    Kind::of::<SwarmPlugin>(&[("swarm", include_bytes!("../../../plugins/dist/swarm.wasm"))]),
];
