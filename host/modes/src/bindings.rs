//! Generated from `wit/`. The world of approximate modes is that of exact ones with more imports.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "approximate-mode",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
        "tightwad:plugin/clock": tightwad_sandbox::bindings::tightwad::plugin::clock,
        "tightwad:plugin/decoding.job": crate::decoding::handles::JobHandle,
        "tightwad:plugin/decoding.pending-draft": crate::decoding::handles::PendingDraft,
        "tightwad:plugin/decoding.pending-commit": crate::decoding::handles::PendingCommit,
    },
});

/// The world of consensus policies. Its log and its types are the modes' own.
pub mod voting {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "voting",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/ballots": super::tightwad::plugin::ballots,
        },
    });
}

/// The world of gates. Its log, its clock and its errors are the modes' own.
pub mod gating {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "gating",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/clock": tightwad_sandbox::bindings::tightwad::plugin::clock,
            "tightwad:plugin/ballots": super::tightwad::plugin::ballots,
            "tightwad:plugin/decoding": super::tightwad::plugin::decoding,
            "tightwad:plugin/reviewing.task": crate::gate::handles::TaskHandle,
        },
    });
}

/// The world of gate policies. Its log and its types are the gates' own.
pub mod verdicts {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "verdicts",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/answers": super::gating::tightwad::plugin::answers,
        },
    });
}

/// The world of swarm policies. Its log is the modes' own.
pub mod picking {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "picking",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log },
    });
}

/// The world of pooling policies. Its log is the modes' own.
pub mod placement {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "placement",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log },
    });
}
