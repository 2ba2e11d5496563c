//! The world `gating`, generated from `wit/`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "gating",
    with: {
        "tightwad:plugin/log@0.1.0": crate::bindings::tightwad::plugin::log,
        "tightwad:plugin/clock@0.1.0": crate::bindings::tightwad::plugin::clock,
        "tightwad:plugin/ballots@0.1.0": crate::bindings::tightwad::plugin::ballots,
        "tightwad:plugin/decoding@0.1.0": crate::bindings::tightwad::plugin::decoding,
    },
    pub_export_macro: true,
    export_macro_name: "__export_gate",
});
