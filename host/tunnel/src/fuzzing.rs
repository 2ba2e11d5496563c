//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use crate::graph::GraphCodec;

/// Decoded graphs survive encoding and decoding. The first two bytes are the length of the first graph.
pub fn graph_delta(bytes: &[u8]) {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return };
    let (first, second) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
    let mut decoder = GraphCodec::default();
    let (mut sender, mut receiver) = (GraphCodec::default(), GraphCodec::default());
    for encoded in [first, second] {
        let Ok(graph) = decoder.decode(encoded) else { continue };
        let Ok(encoded) = sender.encode(graph.clone()) else { panic!("a graph cannot be encoded") };
        assert_eq!(receiver.decode(&encoded).ok(), Some(graph));
    }
}
