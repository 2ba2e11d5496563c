//! Compresses compute graphs on their way to a worker.
//!
//! llama.cpp sends the complete graph of a pass whenever the number of rows changes: a quarter of a megabyte for thirty
//! layers. With speculation that is nearly every pass. Two graphs of one size differ in a few addresses, so a tunnel
//! sends their compressed difference.
//!
//! Invariant: both ends see the same graphs in the same order, and therefore store the same ones.

use std::collections::HashMap;
use std::io;

/// The maximum number of stored graphs, one per size.
const MAX_GRAPHS: usize = 16;
/// The maximum size of all stored graphs together.
const MAX_STORED_BYTES: usize = 64 << 20;
/// The fastest level is enough, because nearly all bytes of a difference are zero.
const ZSTD_LEVEL: i32 = 1;
/// The maximum number of nodes of a graph. The RPC server allocates several hundred bytes per node. Graphs of large
/// models have about ten thousand.
const MAX_NODES: u64 = 64 << 10;
/// The maximum number of tensors of a graph: the nodes and their operands.
const MAX_TENSORS: u64 = 128 << 10;
/// Bytes of a serialized node and of a serialized tensor.
const NODE_BYTES: u64 = 8;
const TENSOR_BYTES: u64 = 296;
/// Bytes of the device, the number of nodes and the number of tensors.
const COUNT_BYTES: u64 = 12;
/// The maximum size of a graph.
const MAX_GRAPH_BYTES: u64 = COUNT_BYTES + MAX_NODES * NODE_BYTES + MAX_TENSORS * TENSOR_BYTES;
/// The maximum body of a graph frame: a length and a compressed difference. zstd adds less than 1 % to data that it
/// cannot compress.
pub(crate) const MAX_GRAPH_FRAME_BYTES: u64 = 8 + MAX_GRAPH_BYTES + MAX_GRAPH_BYTES / 64;

/// Encodes and decodes graphs as differences from the last graph of the same size.
#[derive(Default)]
pub(crate) struct GraphCodec(HashMap<usize, Vec<u8>>);

impl GraphCodec {
    /// Returns the length of `graph` and its compressed difference.
    pub(crate) fn encode(&mut self, graph: Vec<u8>) -> io::Result<Vec<u8>> {
        check_graph(&graph)?;
        let mut encoded = (graph.len() as u64).to_le_bytes().to_vec();
        encoded.extend(zstd::bulk::compress(&self.difference(&graph), ZSTD_LEVEL)?);
        self.store(graph);
        Ok(encoded)
    }

    /// Returns the graph that the other end encoded.
    pub(crate) fn decode(&mut self, encoded: &[u8]) -> io::Result<Vec<u8>> {
        let invalid = || io::Error::other("a graph cannot be decoded");
        let (length, compressed) = encoded.split_first_chunk::<8>().ok_or_else(invalid)?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_GRAPH_BYTES {
            return Err(invalid());
        }
        let length = usize::try_from(length).map_err(|_| invalid())?;
        let difference = zstd::bulk::decompress(compressed, length)?;
        if difference.len() != length {
            return Err(invalid());
        }
        let graph = self.difference(&difference);
        check_graph(&graph)?;
        self.store(graph.clone());
        Ok(graph)
    }

    /// Exclusive or with the last graph of this size. The same operation turns a graph into a difference and back.
    fn difference(&self, graph: &[u8]) -> Vec<u8> {
        match self.0.get(&graph.len()) {
            Some(last) => graph.iter().zip(last).map(|(a, b)| a ^ b).collect(),
            None => graph.to_vec(),
        }
    }

    fn store(&mut self, graph: Vec<u8>) {
        let stored_bytes: usize = self.0.keys().sum();
        let is_full = self.0.len() >= MAX_GRAPHS || stored_bytes + graph.len() > MAX_STORED_BYTES;
        if is_full && !self.0.contains_key(&graph.len()) {
            self.0.clear();
        }
        self.0.insert(graph.len(), graph);
    }
}

/// Checks the body of `GRAPH_COMPUTE`: its counts are within the limits and match its length.
fn check_graph(graph: &[u8]) -> io::Result<()> {
    let count = |offset: u64| {
        let bytes = graph.get(usize::try_from(offset).ok()?..)?.first_chunk()?;
        Some(u64::from(u32::from_le_bytes(*bytes)))
    };
    let nodes = count(4).filter(|nodes| *nodes <= MAX_NODES);
    let tensors = nodes.and_then(|nodes| count(8 + nodes * NODE_BYTES));
    match (nodes, tensors) {
        (Some(nodes), Some(tensors))
            if tensors <= MAX_TENSORS
                && graph.len() as u64 == COUNT_BYTES + nodes * NODE_BYTES + tensors * TENSOR_BYTES =>
        {
            Ok(())
        }
        _ => Err(io::Error::other(format!(
            "a graph of {} bytes is invalid or exceeds {MAX_NODES} nodes and {MAX_TENSORS} tensors",
            graph.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::graph;

    #[test]
    fn graphs_are_decoded_unchanged_from_small_differences() {
        let (mut encoder, mut decoder) = (GraphCodec::default(), GraphCodec::default());
        for round in 0..40_u32 {
            // There are more sizes than an end stores, so both ends drop their graphs.
            let graph = graph(9, 600 + (round % (MAX_GRAPHS as u32 + 2)), round);
            let encoded = encoder.encode(graph.clone()).unwrap();
            assert!(decoder.decode(&encoded).unwrap() == graph, "round {round}");
        }
        let first = graph(9, 1000, 7);
        encoder.encode(first.clone()).unwrap();
        let mut next = first;
        *next.last_mut().unwrap() ^= 8;
        assert!(encoder.encode(next).unwrap().len() < 200);
    }

    #[test]
    fn stored_graphs_are_limited_in_bytes() {
        let mut codec = GraphCodec::default();
        for round in 0..3 {
            let tensors = u32::try_from(MAX_TENSORS).unwrap() - round;
            codec.store(vec![0; graph_bytes(0, tensors)]);
            let stored: usize = codec.0.keys().sum();
            assert!(codec.0.len() == 1 && stored <= MAX_STORED_BYTES, "{stored}");
        }
    }

    #[test]
    fn invalid_data_is_an_error() {
        let mut decoder = GraphCodec::default();
        assert!(decoder.decode(&[]).is_err());
        assert!(decoder.decode(&[255; 40]).is_err());
        assert!(decoder.decode(&[9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).is_err());
    }

    #[test]
    fn counts_must_match_the_length_and_the_limits() {
        let valid = graph(2, 3, 1);
        assert!(check_graph(&valid).is_ok());
        assert!(check_graph(&valid[1..]).is_err() && check_graph(&valid[..9]).is_err());
        let mut many_nodes = valid.clone();
        many_nodes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(check_graph(&many_nodes).is_err());
        let mut many_tensors = valid;
        many_tensors[8 + 16..12 + 16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(check_graph(&many_tensors).is_err());
    }

    fn graph_bytes(nodes: u64, tensors: u32) -> usize {
        usize::try_from(COUNT_BYTES + nodes * NODE_BYTES + u64::from(tensors) * TENSOR_BYTES).unwrap()
    }
}
