//! How much memory a tensor takes on a worker: a question that llama.cpp asks again for every new graph,
//! and waits for the answer, once the way there and back a worker and pass.
//!
//! Invariant: an answer depends on kinds and shapes alone, never on where tensors lie; what is known is
//! from this connection.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// Answers that are kept.
const KEPT: usize = 4096;
/// Bytes of a tensor as it travels.
const TENSOR: usize = 296;
/// Bytes of the device's number, before the tensors.
const DEVICE: usize = 4;
/// What of a tensor says where it lies, or is no more than a name: first byte and length.
const PLACES: [(usize, usize); 5] = [
    // Its number.
    (0, 8),
    // Its buffer.
    (12, 8),
    // Numbers of its sources.
    (124, 80),
    // What it is a view of and from where, its data, its name.
    (204, 88),
    // How often it is used.
    (292, 4),
];

/// Answers by question.
#[derive(Default)]
pub(super) struct Sizes {
    known: HashMap<[u8; 32], Vec<u8>>,
    /// A question that the worker has not answered yet.
    asked: Option<[u8; 32]>,
}

impl Sizes {
    /// The answer to a question, where it is known; else the next [`Sizes::answered`] is.
    pub(super) fn ask(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let key = key(question);
        let known = self.known.get(&key).cloned();
        if known.is_none() {
            self.asked = Some(key);
        }
        known
    }

    /// Notes an answer of the worker's, if this is one to such a question.
    pub(super) fn answered(&mut self, answer: &[u8]) {
        if let Some(key) = self.asked.take() {
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            self.known.insert(key, answer.to_vec());
        }
    }
}

fn key(question: &[u8]) -> [u8; 32] {
    let mut question = question.to_vec();
    let tensors = question.get_mut(DEVICE..).unwrap_or_default();
    for tensor in tensors.chunks_exact_mut(TENSOR) {
        for (start, length) in PLACES {
            // That there is something still counts.
            for place in tensor[start..start + length].chunks_mut(8) {
                let some = place.iter().any(|byte| *byte != 0);
                place.fill(0);
                place[0] = u8::from(some);
            }
        }
    }
    Sha256::digest(&question).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: u64, rows: u32) -> Vec<u8> {
        let mut tensor = vec![0; TENSOR];
        tensor[..8].copy_from_slice(&number.to_le_bytes());
        tensor[20..24].copy_from_slice(&rows.to_le_bytes());
        tensor[220..228].copy_from_slice(&(number * 64).to_le_bytes());
        [vec![0; DEVICE], tensor.clone(), tensor].concat()
    }

    #[test]
    fn shapes_are_asked_for_once() {
        let mut sizes = Sizes::default();
        assert_eq!(sizes.ask(&question(1, 9)), None);
        sizes.answered(b"nine");
        // An answer to something else.
        sizes.answered(b"other");
        assert_eq!(sizes.ask(&question(2, 9)).as_deref(), Some(b"nine".as_slice()));
        assert_eq!(sizes.ask(&question(1, 8)), None);
    }

    #[test]
    fn a_short_question_is_no_harm() {
        assert_eq!(Sizes::default().ask(&[1]), None);
        assert_eq!(Sizes::default().ask(&[]), None);
    }
}
