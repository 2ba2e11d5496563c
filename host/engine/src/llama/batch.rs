//! The rows of one forward pass, in llama.cpp's layout.
//!
//! Invariant: all arrays have one entry a row, and `sequence_ids[i]` points at `sequences[i]`.

use llama_cpp_sys_2::{llama_batch, llama_pos, llama_seq_id, llama_token};
use tightwad_core::TokenId;

/// Rows; each belongs to one sequence.
#[derive(Default)]
pub(crate) struct Batch {
    tokens: Vec<llama_token>,
    positions: Vec<llama_pos>,
    counts: Vec<i32>,
    sequences: Vec<llama_seq_id>,
    sequence_ids: Vec<*mut llama_seq_id>,
    logits: Vec<i8>,
}

// SAFETY: the pointers point into the batch's own vectors, which move with it and are not shared.
unsafe impl Send for Batch {}

impl Batch {
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.positions.clear();
        self.counts.clear();
        self.sequences.clear();
        self.logits.clear();
    }

    /// Adds a row; `logits`: what follows it is wanted.
    pub(crate) fn add(&mut self, token: TokenId, position: usize, sequence: usize, logits: bool) {
        self.tokens.push(token.cast_signed());
        self.positions.push(position as llama_pos);
        self.counts.push(1);
        self.sequences.push(sequence as llama_seq_id);
        self.logits.push(i8::from(logits));
    }

    /// The rows as llama.cpp reads them; valid until the batch is changed.
    pub(crate) fn raw(&mut self) -> llama_batch {
        self.sequence_ids.clear();
        self.sequence_ids.extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.counts.as_mut_ptr(),
            seq_id: self.sequence_ids.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}
