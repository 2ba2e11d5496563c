//! Bindings generated from `wit/`. This module has the world of approximate modes, which is the world of exact modes
//! with further imports. The modules below have the other worlds. Shared interfaces are generated once.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "approximate-mode-plugin",
    // The functions that wait are async.
    imports: {
        "tightwad:plugin/decoding.[method]job.propose": async | trappable,
        "tightwad:plugin/decoding.[method]job.race": async | trappable,
        "tightwad:plugin/decoding.[method]job.verify": async | trappable,
        "tightwad:plugin/decoding.[method]job.verify-tree": async | trappable,
        "tightwad:plugin/decoding.[method]job.decode": async | trappable,
        "tightwad:plugin/decoding.[method]pending-draft.wait": async | trappable,
        "tightwad:plugin/decoding.[drop]pending-draft": async | trappable,
        "tightwad:plugin/decoding.[method]pending-commit.wait": async | trappable,
        "tightwad:plugin/decoding.[drop]pending-commit": async | trappable,
        "tightwad:plugin/unverified.accept-unverified": async | trappable,
        "tightwad:plugin/active-policy.rule": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
        "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
        "tightwad:plugin/clock": tightwad_sandbox::bindings::tightwad::plugin::clock,
        "tightwad:plugin/decoding.job": crate::decoding::handles::JobHandle,
        "tightwad:plugin/decoding.pending-draft": crate::decoding::handles::PendingDraft,
        "tightwad:plugin/decoding.pending-commit": crate::decoding::handles::PendingCommit,
    },
});

/// Bindings of the world of consensus policies.
pub mod consensus_policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "consensus-policy-plugin",
        exports: { default: async },
        with: {
            "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/ballots": super::tightwad::plugin::ballots,
        },
    });
}

/// Bindings of the world of gate modes.
pub mod gate_mode {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "gate-mode-plugin",
        imports: {
            "tightwad:plugin/reviewing.[method]task.generate": async | trappable,
            "tightwad:plugin/reviewing.[method]task.score": async | trappable,
            "tightwad:plugin/reviewing.[method]task.release-prefix": async | trappable,
            "tightwad:plugin/reviewing.[method]task.ask-reviewer": async | trappable,
            "tightwad:plugin/reviewing.[method]task.ask-policy": async | trappable,
            "tightwad:plugin/reviewing.[method]task.approve": async | trappable,
            "tightwad:plugin/reviewing.[method]task.correct": async | trappable,
            "tightwad:plugin/reviewing.[method]task.reject": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/clock": tightwad_sandbox::bindings::tightwad::plugin::clock,
            "tightwad:plugin/ballots": super::tightwad::plugin::ballots,
            "tightwad:plugin/decoding": super::tightwad::plugin::decoding,
            "tightwad:plugin/reviewing.task": crate::gate::handles::TaskHandle,
        },
    });
}

/// Bindings of the world of gate policies.
pub mod gate_policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "gate-policy-plugin",
        exports: { default: async },
        with: {
            "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
            "tightwad:plugin/answers": super::gate_mode::tightwad::plugin::answers,
        },
    });
}

/// Bindings of the world of piece pickers.
pub mod piece_picker {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "piece-picker-plugin",
        exports: { default: async },
        with: {
            "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
        },
    });
}

/// Bindings of the world of placement policies.
pub mod placement_policy {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "placement-policy-plugin",
        exports: { default: async },
        with: {
            "tightwad:plugin/types": tightwad_sandbox::bindings::tightwad::plugin::types,
            "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log,
        },
    });
}
