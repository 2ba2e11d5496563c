//! Generated from `wit/`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "exact-mode",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "tightwad:plugin/decoding.job": super::state::JobHandle,
        "tightwad:plugin/decoding.pending-draft": super::state::PendingDraft,
        "tightwad:plugin/decoding.pending-commit": super::state::PendingCommit,
    },
});

/// The world of pooling policies. Its log is the modes' own.
pub mod placement {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "placement",
        imports: { default: async | trappable },
        exports: { default: async },
        with: { "tightwad:plugin/log": super::tightwad::plugin::log },
    });
}
