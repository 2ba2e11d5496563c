//! The digest of the weights.

use std::fs;
use std::path::Path;

use tightwad_engine::Weights;

use crate::support::{content, enable_trials, folder, model};

fn digest(path: &Path) -> [u8; 32] {
    enable_trials();
    Weights::load_vocabulary(path).unwrap().file_digest()
}

#[test]
fn digest_covers_metadata_tensor_headers_and_each_tensor() {
    let path = folder("digest").join("model.gguf");
    let original = digest(&model());
    content().write(&path).unwrap();
    assert_eq!(digest(&path), original, "a copy has the same digest");
    let mut named = content();
    named.set_text("general.name", "another name");
    named.write(&path).unwrap();
    assert_ne!(digest(&path), original, "metadata");
    // One byte in the middle of one tensor, far behind the header and far from its neighbours.
    for (tensor, place) in [("token_embd.weight", 2), ("blk.3.ffn_up.weight", 2), ("blk.5.attn_q.weight", 1)]
    {
        let mut edited = content();
        edited.edit_tensor(tensor, |_, bytes| {
            let middle = bytes.len() - bytes.len() / place;
            bytes[middle] ^= 1;
        });
        edited.write(&path).unwrap();
        assert_ne!(digest(&path), original, "{tensor}");
    }
    let mut reshaped = content();
    reshaped.edit_tensor("blk.0.attn_norm.weight", |sizes, _| sizes.push(1));
    reshaped.write(&path).unwrap();
    assert_ne!(digest(&path), original, "tensor headers");
}

#[test]
fn digest_covers_all_parts() {
    let folder = folder("digest-parts");
    let parts = content().write_parts(&folder, "model", 3).unwrap();
    let before = digest(&parts[0]);
    let mut last = fs::read(&parts[2]).unwrap();
    let end = last.len() - 40;
    last[end] ^= 1;
    fs::write(&parts[2], last).unwrap();
    assert_ne!(digest(&parts[0]), before);
}
