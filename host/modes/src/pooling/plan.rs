//! The placement of a model's layers on machines: the types of `wit/placement-policy.wit`.

use serde::{Deserialize, Serialize};

/// One repeating layer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The weights, which every token reads.
    pub weights: u64,
    /// The KV cache of all sequences.
    pub cache: u64,
}

/// The sizes of a model, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The repeating layers, in order. A machine holds a contiguous run of layers.
    pub layers: Vec<Layer>,
    /// The output head with the last norm. One machine holds it.
    pub output: u64,
    /// One row of logits: the output head sends it to the host.
    pub logits: u64,
    /// One row of activations: each layer sends it to the next.
    pub activations: u64,
    /// The memory that each machine with layers or the output head needs in addition.
    pub compute_buffer: u64,
    /// The memory that the machine with the output head needs in addition: the logits of one pass. This buffer does
    /// not affect the time per token.
    pub output_buffer: u64,
}

/// A machine that lends memory and compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The name in logs and refusals.
    pub name: String,
    /// The free bytes that the machine lends.
    pub memory: u64,
    /// The bytes of weights per second that the machine reads for one token. 0: unknown.
    pub memory_bandwidth: u64,
    /// The bytes per second of the link to the host. 0: unknown. Meaningless for the host itself.
    pub link_bandwidth: u64,
    /// The network round trip to the machine, in nanoseconds. Meaningless for the host itself.
    pub round_trip_ns: u64,
    /// True for the host itself. The host has no link and holds the first layers. At most one machine is the host; the
    /// others are workers.
    pub is_host: bool,
    /// The maximum number of layers on the machine; 0: none. A host that may hold no layers may still hold the output
    /// head.
    pub max_layers: u32,
}

/// The layers of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The machine's index in the list of machines.
    pub machine: u32,
    /// The number of layers; at least 1.
    pub layers: u32,
}

/// The place of every layer. A plugin made the plan, so the host checks the plan before use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the layers. The host comes first if it holds layers.
    pub assignments: Vec<Assignment>,
    /// True: the host holds the output head. False: the machine of the last assignment holds it.
    pub output_on_host: bool,
    /// The expected time per token, in nanoseconds. The host only reports this time.
    pub time_per_token_ns: u64,
}

/// The missing memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortage {
    /// One machine with this many more bytes would suffice.
    pub missing: u64,
    /// The number of layers that fit, from the first on. If all layers fit, the output head does not.
    pub fits: u32,
}

/// The reason why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The machines do not lend enough memory.
    TooBig(Shortage),
    /// Any other reason. The text names the fault and its remedy.
    Other(String),
}
