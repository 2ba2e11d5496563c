//! The rows of one forward pass, in llama.cpp's layout.
//!
//! Invariant: all arrays have one entry per row, and `sequence_id_pointers[i]` points to `sequence_ids[i]`.

use llama_cpp_sys_2::{llama_batch, llama_pos, llama_seq_id, llama_token};
use tightwad_core::TokenId;

/// The rows of a batch; each belongs to one sequence.
#[derive(Default)]
pub(crate) struct Batch {
    tokens: Vec<llama_token>,
    positions: Vec<llama_pos>,
    sequence_counts: Vec<i32>,
    sequence_ids: Vec<llama_seq_id>,
    sequence_id_pointers: Vec<*mut llama_seq_id>,
    logits: Vec<i8>,
}

// SAFETY: the pointers point into the batch's own vectors. The vectors move with the batch and are not
// shared.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.sequence_counts.clear();
        self.sequence_ids.clear();
        self.logits.clear();
    }

    /// Adds a row. `logits`: the pass must compute its logits.
    pub(crate) fn add(&mut self, token: TokenId, position: usize, sequence: usize, logits: bool) {
        self.tokens.push(token.cast_signed());
        self.positions.push(position as llama_pos);
        self.sequence_counts.push(1);
        self.sequence_ids.push(sequence as llama_seq_id);
        self.logits.push(i8::from(logits));
    }

    /// The rows in llama.cpp's layout; valid until the batch changes.
    pub(crate) fn as_llama_batch(&mut self) -> llama_batch {
        self.sequence_id_pointers.clear();
        self.sequence_id_pointers.extend(self.sequence_ids.iter_mut().map(std::ptr::from_mut));
        llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_id_pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}
