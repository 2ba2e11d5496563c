//! The kinds of plugins, with the built-in plugins.

use tightwad_sandbox::Kind;

use crate::consensus::policy::ConsensusPolicy;
use crate::decoding::component::ModeDriver;
use crate::gate::component::GateDriver;
use crate::gate::policy::GatePolicy;
use crate::pooling::component::PlacementPolicy;
use crate::swarm::component::PiecePicker;

/// Every kind of plugin, with its built-in plugins.
pub const KINDS: &[Kind] = &[
    Kind::of::<ModeDriver>(&[
        ("speculation", include_bytes!("../../../plugins/dist/speculation.wasm")),
        ("consensus", include_bytes!("../../../plugins/dist/consensus.wasm")),
    ]),
    Kind::of::<ConsensusPolicy>(&[]),
    Kind::of::<GateDriver>(&[("gate", include_bytes!("../../../plugins/dist/gate.wasm"))]),
    Kind::of::<GatePolicy>(&[]),
    Kind::of::<PlacementPolicy>(&[("pooling", include_bytes!("../../../plugins/dist/pooling.wasm"))]),
    Kind::of::<PiecePicker>(&[("swarm", include_bytes!("../../../plugins/dist/swarm.wasm"))]),
];
