//! Fuzz targets for the hand-written parsers of foreign bytes.
//!
//! A target is a function that parses any bytes. It panics only if the parser has a fault: if the parser panics, or if
//! it breaks an invariant that the target asserts, such as "encoding and parsing again gives the same message".
//! `cargo xtask fuzz` runs the targets under libFuzzer. The test `replay` runs them over the committed corpora.

use std::path::{Path, PathBuf};

use tightwad_gguf::Header;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name, which is also the name of the folder of its corpus.
    pub name: &'static str,
    /// Parses the bytes, and panics if the parser has a fault.
    pub run: fn(&[u8]),
}

/// All targets, sorted by name.
pub const TARGETS: [Target; 11] = [
    Target { name: "answer_stream", run: tightwad_remote::fuzzing::answer },
    Target { name: "gguf", run: gguf },
    Target { name: "gguf_tensors", run: tightwad_swarm::fuzzing::gguf },
    Target { name: "graph_delta", run: tightwad_tunnel::fuzzing::graph_delta },
    Target { name: "lua_value", run: tightwad_script::fuzzing::lua_value },
    Target { name: "manifest", run: tightwad_swarm::fuzzing::manifest },
    Target { name: "node_message", run: tightwad_node::fuzzing::message },
    Target { name: "request_body", run: tightwad_serve::fuzzing::request_body },
    Target { name: "swarm_message", run: tightwad_swarm::fuzzing::message },
    Target { name: "tool_call", run: tightwad_serve::fuzzing::tool_call },
    Target { name: "tunnel_frame", run: tightwad_tunnel::fuzzing::frames },
];

/// A header that describes its tensors well describes the length of its file.
fn gguf(bytes: &[u8]) {
    let Ok(Some(header)) = Header::read(bytes, bytes.len() as u64) else { return };
    if let Ok(length) = header.file_length() {
        assert!(length >= header.data_offset);
    }
}

/// The target `name`.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// The folder of the committed corpus of the target `name`.
#[must_use]
pub fn corpus_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}
