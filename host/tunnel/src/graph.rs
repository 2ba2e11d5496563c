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
/// The fastest level is enough, because nearly all bytes of a difference are zero.
const ZSTD_LEVEL: i32 = 1;
/// The maximum size of a received graph.
const MAX_GRAPH_BYTES: u64 = 256 << 20;

/// Encodes and decodes graphs as differences from the last graph of the same size.
#[derive(Default)]
pub(crate) struct GraphCodec(HashMap<usize, Vec<u8>>);

impl GraphCodec {
    /// Returns the length of `graph` and its compressed difference.
    pub(crate) fn encode(&mut self, graph: Vec<u8>) -> io::Result<Vec<u8>> {
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
        if self.0.len() >= MAX_GRAPHS && !self.0.contains_key(&graph.len()) {
            self.0.clear();
        }
        self.0.insert(graph.len(), graph);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_decoded_unchanged_from_small_differences() {
        let (mut encoder, mut decoder) = (GraphCodec::default(), GraphCodec::default());
        let mut last = 0;
        for round in 0..40_usize {
            // There are more sizes than an end stores, so both ends drop their graphs.
            let size = 200_000 + 1000 * (round % (MAX_GRAPHS + 2));
            let graph: Vec<u8> = (0..size)
                .map(|index| ((index * index) ^ (round * usize::from(index % 999 == 0))) as u8)
                .collect();
            let encoded = encoder.encode(graph.clone()).unwrap();
            last = encoded.len();
            assert_eq!(decoder.decode(&encoded).unwrap(), graph);
        }
        assert!(last > 0);
        let graph = vec![7; 250_000];
        encoder.encode(graph.clone()).unwrap();
        let mut next = graph;
        next[1000] = 8;
        assert!(encoder.encode(next).unwrap().len() < 200);
    }

    #[test]
    fn invalid_data_is_an_error() {
        let mut decoder = GraphCodec::default();
        assert!(decoder.decode(&[]).is_err());
        assert!(decoder.decode(&[255; 40]).is_err());
        assert!(decoder.decode(&[9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).is_err());
    }
}
