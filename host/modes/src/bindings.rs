//! Generated from `wit/`. The world of approximate modes is that of exact ones with more imports.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "approximate-mode",
    // Functions that wait.
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
        "tightwad:plugin/policy.rule": async | trappable,
        default: trappable,
    },
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
        imports: {
            "tightwad:plugin/reviewing.[method]task.write": async | trappable,
            "tightwad:plugin/reviewing.[method]task.score": async | trappable,
            "tightwad:plugin/reviewing.[method]task.ask": async | trappable,
            "tightwad:plugin/reviewing.[method]task.judge": async | trappable,
            "tightwad:plugin/reviewing.[method]task.pass": async | trappable,
            "tightwad:plugin/reviewing.[method]task.approve": async | trappable,
            "tightwad:plugin/reviewing.[method]task.correct": async | trappable,
            "tightwad:plugin/reviewing.[method]task.rewrite": async | trappable,
            default: trappable,
        },
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
        exports: { default: async },
        with: { "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log },
    });
}

/// The world of pooling policies. Its log is the modes' own.
pub mod placement {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "placement",
        exports: { default: async },
        with: { "tightwad:plugin/log": tightwad_sandbox::bindings::tightwad::plugin::log },
    });
}
