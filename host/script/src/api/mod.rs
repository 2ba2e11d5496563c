//! The functions of `tw`.

pub(crate) mod arg;
pub(crate) mod client_keys;
pub(crate) mod consensus;
pub(crate) mod function_builder;
pub(crate) mod gate;
pub(crate) mod log;
pub(crate) mod model;
pub(crate) mod nodes;
pub(crate) mod paths;
pub(crate) mod plugins;
pub(crate) mod pooling;
pub(crate) mod serve;
pub(crate) mod speculation;
pub(crate) mod stack;
pub(crate) mod table;
pub(crate) mod text;

use crate::keys::Schema;

/// The options of each function of `tw` but tw.arg, whose keys a script chooses.
pub(crate) const FUNCTIONS: [&Schema; 13] = [
    &model::MODEL,
    &model::LOOKUP,
    &stack::HEADS,
    &nodes::NODE,
    &nodes::DISCOVER,
    &text::LLAMA_SERVER,
    &text::OLLAMA,
    &text::OPENAI,
    &pooling::POOLING,
    &speculation::SPECULATION,
    &consensus::CONSENSUS,
    &gate::GATE,
    &serve::SERVE,
];
