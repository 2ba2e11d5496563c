//! The world `picking`, generated from `wit/`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "picking",
    with: { "tightwad:plugin/log@0.1.0": crate::bindings::tightwad::plugin::log },
    additional_derives: [PartialEq, Eq],
    pub_export_macro: true,
    export_macro_name: "__export_picking",
});
