//! Graphs on their way to a worker.
//!
//! llama.cpp describes a whole pass, node by node, whenever the number of rows changes, which with
//! speculation is nearly every pass: a quarter of a megabyte for thirty layers. Two graphs of one size
//! differ in a few addresses, so what travels is their difference, compressed.
//!
//! Invariant: both ends see the same graphs in the same order, and so keep the same ones.

use std::collections::HashMap;
use std::io;

/// Graphs that are kept, one a size.
const KEPT: usize = 16;
/// Quick: the difference is nearly all zeros.
const LEVEL: i32 = 1;
/// Largest graph that is taken in.
const LARGEST: u64 = 256 << 20;

/// The last graph of each size.
#[derive(Default)]
pub(crate) struct Graphs(HashMap<usize, Vec<u8>>);

impl Graphs {
    /// What travels: the length, and the compressed difference.
    pub(crate) fn pack(&mut self, graph: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut packed = (graph.len() as u64).to_le_bytes().to_vec();
        packed.extend(zstd::bulk::compress(&self.difference(&graph), LEVEL)?);
        self.keep(graph);
        Ok(packed)
    }

    /// The graph that was packed at the other end.
    pub(crate) fn unpack(&mut self, packed: &[u8]) -> io::Result<Vec<u8>> {
        let broken = || io::Error::other("a graph cannot be read");
        let (length, compressed) = packed.split_first_chunk::<8>().ok_or_else(broken)?;
        let length = u64::from_le_bytes(*length);
        if length > LARGEST {
            return Err(broken());
        }
        let length = usize::try_from(length).map_err(|_| broken())?;
        let difference = zstd::bulk::decompress(compressed, length)?;
        if difference.len() != length {
            return Err(broken());
        }
        let graph = self.difference(&difference);
        self.keep(graph.clone());
        Ok(graph)
    }

    /// Exclusive or with the last graph of this size: the difference of a graph, and the graph of a
    /// difference.
    fn difference(&self, graph: &[u8]) -> Vec<u8> {
        match self.0.get(&graph.len()) {
            Some(last) => graph.iter().zip(last).map(|(a, b)| a ^ b).collect(),
            None => graph.to_vec(),
        }
    }

    fn keep(&mut self, graph: Vec<u8>) {
        if self.0.len() >= KEPT && !self.0.contains_key(&graph.len()) {
            self.0.clear();
        }
        self.0.insert(graph.len(), graph);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_arrive_whole_and_small() {
        let (mut near, mut far) = (Graphs::default(), Graphs::default());
        let mut last = 0;
        for round in 0..40_usize {
            // Sizes beyond what is kept, so that both ends forget.
            let size = 200_000 + 1000 * (round % (KEPT + 2));
            let graph: Vec<u8> =
                (0..size).map(|at| ((at * at) ^ (round * usize::from(at % 999 == 0))) as u8).collect();
            let packed = near.pack(graph.clone()).unwrap();
            last = packed.len();
            assert_eq!(far.unpack(&packed).unwrap(), graph);
        }
        assert!(last > 0);
        let graph = vec![7; 250_000];
        near.pack(graph.clone()).unwrap();
        let mut next = graph;
        next[1000] = 8;
        assert!(near.pack(next).unwrap().len() < 200);
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut far = Graphs::default();
        assert!(far.unpack(&[]).is_err());
        assert!(far.unpack(&[255; 40]).is_err());
        assert!(far.unpack(&[9, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]).is_err());
    }
}
