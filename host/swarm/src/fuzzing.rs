//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::disk::Manifest;
use crate::disk::gguf::Gguf;
use crate::net::peer::Peer;
use crate::net::{Announce, Have, ModelListing, PeerList};

/// A header's tensors lie in the file, in order and without gaps.
pub fn gguf(bytes: &[u8]) {
    let size = bytes.len() as u64;
    let Ok(Some(gguf)) = Gguf::read(bytes, size) else { return };
    let mut end = gguf.data_offset;
    for tensor in &gguf.tensors {
        assert_eq!(tensor.offset, end, "a gap before the tensor {:?}", tensor.name);
        end += tensor.bytes;
        let _ = tensor.layer();
    }
    assert_eq!(end, size, "the tensors end before the file");
}

/// A manifest survives writing and parsing, and keeps its root.
pub fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    let parsed = Manifest::parse(&manifest.to_json());
    assert_eq!(parsed.ok(), Some(manifest));
}

/// Each message of the seeder protocol survives writing and parsing. The first byte chooses the message.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => round_trip::<Vec<ModelListing>>(bytes),
        1 => round_trip::<Have>(bytes),
        2 => round_trip::<Announce>(bytes),
        _ => {
            round_trip::<PeerList>(bytes);
            let list: PeerList = serde_json::from_slice(bytes).unwrap_or_default();
            for peer in list.peers.iter().filter_map(|peer| Peer::from_exchange(peer)) {
                let _ = (peer.url("/v1/swarm"), peer.to_string());
            }
        }
    }
}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&message).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<T>(&written).ok(), Some(message));
}
