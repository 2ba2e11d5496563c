//! The root of a manifest: a Merkle tree as in RFC 6962. Its leaves cover everything except the name.

use sha2::{Digest as _, Sha256};

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;
use crate::disk::format::{Content, FORMAT_VERSION, Piece};

/// The root of this content.
pub(crate) fn root(content: &Content) -> Digest {
    let pieces = content.pieces.iter().enumerate();
    // The first leaf also covers the fields of the whole file.
    let leaves: Vec<Digest> =
        pieces.map(|(index, piece)| leaf((index == 0).then_some(content), piece)).collect();
    tree(&leaves)
}

fn leaf(content: Option<&Content>, piece: &Piece) -> Digest {
    let mut hasher = Sha256::new_with_prefix([0]);
    if let Some(content) = content {
        hasher.update(FORMAT_VERSION.to_le_bytes());
        hasher.update(content.size.to_le_bytes());
        hasher.update(content.largest_piece.to_le_bytes());
        hash_facts(&mut hasher, &content.facts);
    }
    hasher.update(piece.length.to_le_bytes());
    hasher.update(piece.digest.0);
    hasher.update((piece.blocks.len() as u64).to_le_bytes());
    for block in &piece.blocks {
        hasher.update(block.length.to_le_bytes());
        hasher.update(block.digest.0);
    }
    Digest::from_hasher(hasher)
}

/// Hashes the length and the bytes of every fact. An absent fact differs from an empty one by its length.
fn hash_facts(hasher: &mut Sha256, facts: &Facts) {
    let Facts { architecture, name, file_type, context, chat_template } = facts;
    let file_type = file_type.map(u32::to_le_bytes);
    let context = context.map(u64::to_le_bytes);
    let values = [
        architecture.as_deref().map(str::as_bytes),
        name.as_deref().map(str::as_bytes),
        file_type.as_ref().map(<[u8; 4]>::as_slice),
        context.as_ref().map(<[u8; 8]>::as_slice),
        chat_template.as_ref().map(|digest| digest.0.as_slice()),
    ];
    for value in values {
        hasher.update(value.map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hasher.update(value.unwrap_or_default());
    }
}

fn tree(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [leaf] => *leaf,
        _ => {
            // RFC 6962: the left tree has the largest power of two below the number of leaves.
            let left = 1 << (leaves.len() - 1).ilog2();
            let mut hasher = Sha256::new_with_prefix([1]);
            hasher.update(tree(&leaves[..left]).0);
            hasher.update(tree(&leaves[left..]).0);
            Digest::from_hasher(hasher)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors of Certificate Transparency.
    #[test]
    fn tree_matches_rfc_6962() {
        let inputs: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves = inputs.map(|input| Digest::of(&[b"\x00", input].concat()));
        let expected = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (count, root) in (1..).zip(expected) {
            assert_eq!(tree(&leaves[..count]).to_string(), root, "{count} leaves");
        }
    }
}
