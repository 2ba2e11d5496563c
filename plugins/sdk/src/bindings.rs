//! Generated from `wit/`.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "exact-mode",
    pub_export_macro: true,
    export_macro_name: "__export_exact_mode",
});
