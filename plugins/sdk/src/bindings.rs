//! Generated from `wit/`: the world of approximate modes, which is that of exact ones with more imports. Of
//! imports, a component has those that it uses.
#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "approximate-mode",
    pub_export_macro: true,
    export_macro_name: "__export_mode",
});
