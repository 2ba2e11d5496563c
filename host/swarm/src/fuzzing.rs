//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use std::net::IpAddr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::Manifest;
use crate::disk::gguf::Gguf;
use crate::net::wire::are_runs_of;
use crate::net::{Announce, Have, ModelListing, PeerList, exchange};

/// A header's tensors lie in the file, in order and without gaps.
pub fn gguf(bytes: &[u8]) {
    let size = bytes.len() as u64;
    let Ok(Some(gguf)) = Gguf::read(bytes, size) else { return };
    let mut end = gguf.data_offset;
    for tensor in &gguf.tensors {
        assert_eq!(tensor.offset, end, "a gap between two tensors");
        end += tensor.bytes;
    }
    assert_eq!(end, size, "the tensors end before the file");
}

/// A manifest survives writing and parsing, and keeps its root.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    let parsed = Manifest::parse(&manifest.to_json());
    assert_eq!(parsed.ok(), Some(manifest));
}

/// Pieces of the model in the fuzzed messages.
const MAX_PIECES: u32 = 1000;

/// Each message of the seeder protocol survives writing and parsing. The first byte chooses the message.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => round_trip::<Vec<ModelListing>>(bytes),
        1 => {
            round_trip::<Have>(bytes);
            let Ok(have) = serde_json::from_slice::<Have>(bytes) else { return };
            if are_runs_of(&have.pieces, MAX_PIECES) {
                let pieces: u64 = have.pieces.iter().map(|(start, end)| u64::from(end - start)).sum();
                assert!(pieces <= u64::from(MAX_PIECES));
            }
        }
        2 => round_trip::<Announce>(bytes),
        _ => {
            round_trip::<PeerList>(bytes);
            let list: PeerList = serde_json::from_slice(bytes).unwrap_or_default();
            for teller in [IpAddr::from([127, 0, 0, 1]), IpAddr::from([192, 168, 1, 2])] {
                for peer in list.peers.iter().filter_map(|peer| exchange::accept(peer, teller)) {
                    let _ = (peer.url("/v1/swarm"), peer.to_string());
                }
            }
        }
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&message).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(message));
}
