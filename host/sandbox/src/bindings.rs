//! Bindings generated from `wit/`: the shared types, and the interfaces `log` and `clock`.
#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    interfaces: "
        import tightwad:plugin/log@0.1.0;
        import tightwad:plugin/clock@0.1.0;
    ",
    imports: { default: trappable },
});
