//! Placing one model's layers over machines: the question, the plan and the refusal, as
//! `wit/pooling.wit` has them.

use serde::{Deserialize, Serialize};

/// One repeating layer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its weights: what one token reads.
    pub weights: u64,
    /// Its KV cache, for all sequences.
    pub cache: u64,
}

/// What is to be placed. All sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The repeating layers, in order; a machine holds a run of them.
    pub layers: Vec<Layer>,
    /// The output head with the last norm; it lies on one machine.
    pub output: u64,
    /// One row of logits: what the head sends to the host.
    pub logits: u64,
    /// One row of activations: what goes from one layer to the next.
    pub activations: u64,
    /// What each machine that holds anything needs besides.
    pub scratch: u64,
    /// What the machine with the output head needs besides: one pass's logits. Memory only, no time.
    pub head_scratch: u64,
}

/// A machine that lends itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// How logs and refusals call it.
    pub name: String,
    /// Free bytes that it lends.
    pub memory: u64,
    /// Bytes of weights that it reads in a second for one token; 0: unknown.
    pub speed: u64,
    /// Bytes a second over its link to the host; 0: unknown. Meaningless for the host itself.
    pub bandwidth: u64,
    /// The way to it and back, in nanoseconds. Meaningless for the host itself.
    pub round_trip: u64,
    /// The host itself: it has no link, and gets the first layers. At most one; the others are workers.
    pub here: bool,
    /// Most layers that it may hold; 0: none. The host may hold the output head even so.
    pub max_layers: u32,
}

/// A machine's run of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Index into the list of machines.
    pub machine: u32,
    /// How many layers; at least 1.
    pub layers: u32,
}

/// Where everything goes. A plugin made it: whoever carries it out checks it first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the layers, the host first where it has any.
    pub shares: Vec<Share>,
    /// True: the output head lies on the host. False: on the machine of the last share.
    pub output_here: bool,
    /// Expected time of one token, in nanoseconds. For people and for comparisons.
    pub token: u64,
}

/// How far the machines' memory is from enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// So many bytes more, on one of the machines, would do.
    pub missing: u64,
    /// So many layers, from the first on, do fit. All of them: the output head is what does not.
    pub fits: u32,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The machines do not lend enough memory.
    TooBig(Shortage),
    /// Anything else; the text says what, and what to change.
    Other(String),
}
