//! The world `verdicts`, generated from `wit/`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "verdicts",
    with: {
        "tightwad:plugin/log@0.1.0": crate::bindings::tightwad::plugin::log,
        "tightwad:plugin/answers@0.1.0": crate::gating::tightwad::plugin::answers,
    },
    pub_export_macro: true,
    export_macro_name: "__export_verdicts",
});
