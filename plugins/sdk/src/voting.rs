//! The world `voting`, generated from `wit/`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "voting",
    with: {
        "tightwad:plugin/log@0.1.0": crate::bindings::tightwad::plugin::log,
        "tightwad:plugin/ballots@0.1.0": crate::bindings::tightwad::plugin::ballots,
    },
    pub_export_macro: true,
    export_macro_name: "__export_voting",
});
