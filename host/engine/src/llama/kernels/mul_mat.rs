//! Matrix products of weights and activations (`GGML_OP_MUL_MAT`).

use std::slice;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{ActivationBlock, BLOCK_SIZE};
use crate::llama::kernels::compute::{ComputeParams, has_valid_size};
use crate::llama::kernels::dot::PANEL_ROWS;
use crate::llama::kernels::panel::{Panel, WeightFormat};
use crate::llama::kernels::simd::InstructionSet;

/// Chunks of a product per thread. A delayed thread leaves its chunks to the other threads.
const CHUNKS_PER_THREAD: usize = 8;

/// A matrix product that the kernels support.
pub(crate) struct MulMat<'a> {
    isa: InstructionSet,
    format: WeightFormat,
    weights: &'a sys::ggml_tensor,
    activations: &'a sys::ggml_tensor,
    result: &'a sys::ggml_tensor,
    /// Blocks of 32 values per row and per column.
    blocks: usize,
    columns: usize,
}

impl<'a> MulMat<'a> {
    /// `operation` as a product, if the kernels support it. This decision must not depend on the number of
    /// columns.
    ///
    /// # Safety
    ///
    /// `operation` and its operands are live.
    pub(crate) unsafe fn from_op(operation: &'a sys::ggml_tensor) -> Option<Self> {
        if operation.op != sys::GGML_OP_MUL_MAT {
            return None;
        }
        let isa = InstructionSet::selected_set()?;
        // SAFETY: a matrix product has two operands.
        let (weights, activations) = unsafe { (operation.src[0].as_ref()?, operation.src[1].as_ref()?) };
        let format = WeightFormat::from_ggml(weights.type_)?;
        let [width, rows, 1, 1] = weights.ne.map(|size| usize::try_from(size).unwrap_or(0)) else {
            return None;
        };
        let whole_blocks = width.is_multiple_of(format.block_weights())
            && rows.is_multiple_of(PANEL_ROWS)
            && width > 0
            && rows > 0;
        let contiguous = is_evenly_strided(activations) && is_evenly_strided(operation);
        // On a worker, the shapes come from another machine. ggml checks only that `ggml_nbytes` of each tensor
        // fits in its buffer, so that size must cover all that the kernels read.
        let shapes_match = activations.ne[0] == weights.ne[0]
            && operation.ne[0] == weights.ne[1]
            && operation.ne[1..] == activations.ne[1..]
            && weights.nb[0] == format.block_bytes()
            && weights.nb[1] >= width / format.block_weights() * format.block_bytes()
            && [weights, activations, operation].iter().all(|tensor| has_valid_size(tensor));
        (whole_blocks && contiguous && shapes_match).then(|| Self {
            isa,
            format,
            weights,
            activations,
            result: operation,
            blocks: width / BLOCK_SIZE,
            columns: activations.ne[1..].iter().map(|size| *size as usize).product(),
        })
    }

    /// Bytes of the quantized activations.
    pub(crate) fn work_size(&self) -> usize {
        self.columns * self.blocks * size_of::<ActivationBlock>()
    }

    /// Computes one thread's chunks.
    ///
    /// # Safety
    ///
    /// All threads of the pool call this function, with [`MulMat::work_size`] bytes of work memory.
    pub(crate) unsafe fn compute(&self, params: &ComputeParams) {
        let (thread, threads) = (params.thread_index as usize, params.thread_count as usize);
        let total_blocks = self.columns * self.blocks;
        let work = params.work.cast::<ActivationBlock>();
        for index in thread * total_blocks / threads..(thread + 1) * total_blocks / threads {
            // SAFETY: `values` is a block of the column and `index` is less than `total_blocks`. No other
            // thread writes this block. ggml aligns its memory for vectors.
            unsafe {
                let column =
                    self.activations.data.cast::<u8>().add(index / self.blocks * self.activations.nb[1]);
                let values = column.cast::<[f32; BLOCK_SIZE]>().add(index % self.blocks);
                work.add(index).write(self.format.quantize(&*values));
            }
        }
        let panels = self.weights.ne[1] as usize / PANEL_ROWS;
        let chunk_panels = panels.div_ceil(threads * CHUNKS_PER_THREAD);
        // SAFETY: all threads of the pool call this function.
        let chunks = unsafe { params.work_chunks(panels.div_ceil(chunk_panels)) };
        // SAFETY: from here on, the blocks of all threads are visible to all.
        let activations = unsafe { slice::from_raw_parts(work, total_blocks) };
        for chunk in chunks {
            let (first, end) = (chunk * chunk_panels, ((chunk + 1) * chunk_panels).min(panels));
            for panel in first..end {
                // Threads of equal speed take chunks in turn.
                let next = if panel + 1 < end { panel + 1 } else { first + threads * chunk_panels };
                // SAFETY: the panel is part of the weights, and no other thread computes it.
                unsafe { self.compute_panel(panel, next, activations) };
            }
        }
    }

    /// Computes one panel. `next` is the panel that probably follows.
    unsafe fn compute_panel(&self, panel: usize, next: usize, activations: &[ActivationBlock]) {
        let stride = self.weights.nb[1];
        let weights = self.weights.data.cast::<u8>().cast_const();
        // SAFETY: the panel is part of the weights, which have this format. The result has these rows, and as
        // many columns as the activations.
        unsafe {
            let panel = Panel {
                weights: weights.add(panel * PANEL_ROWS * stride),
                stride,
                prefetch: weights.wrapping_add(next * PANEL_ROWS * stride),
                blocks: self.blocks,
                activations,
                out: self.result.data.cast::<f32>().add(panel * PANEL_ROWS),
                out_stride: self.result.nb[1] / size_of::<f32>(),
            };
            self.format.multiply(self.isa, &panel);
        }
    }
}

/// True for a tensor of floats whose columns have one constant stride.
fn is_evenly_strided(tensor: &sys::ggml_tensor) -> bool {
    let (sizes, strides) = (tensor.ne.map(|size| size as usize), tensor.nb);
    // The stride of a dimension of size 1 is meaningless.
    let stride_is =
        |dimension: usize, bytes: Option<usize>| sizes[dimension] == 1 || Some(strides[dimension]) == bytes;
    let plane = sizes[1].checked_mul(strides[1]);
    tensor.type_ == sys::GGML_TYPE_F32
        && strides[0] == size_of::<f32>()
        && strides[1].is_multiple_of(size_of::<f32>())
        && sizes[0].checked_mul(size_of::<f32>()).is_some_and(|row| strides[1] >= row)
        && stride_is(2, plane)
        && stride_is(3, plane.and_then(|plane| plane.checked_mul(sizes[2])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: sys::ggml_type = sys::GGML_TYPE_Q8_0;
    /// 32 values of Q8_0.
    const BLOCK_BYTES: usize = 34;

    fn tensor(type_: sys::ggml_type, ne: [i64; 4], nb: [usize; 4]) -> sys::ggml_tensor {
        // SAFETY: zeros and null pointers are valid for all fields.
        let empty = unsafe { std::mem::zeroed::<sys::ggml_tensor>() };
        sys::ggml_tensor { type_, ne, nb, ..empty }
    }

    /// True if the kernels accept the product after `change` to its weights, activations and result.
    fn is_accepted(change: impl FnOnce(&mut [sys::ggml_tensor; 3])) -> bool {
        let row = 2 * BLOCK_BYTES;
        let mut tensors = [
            tensor(TYPE, [64, 16, 1, 1], [BLOCK_BYTES, row, 16 * row, 16 * row]),
            tensor(sys::GGML_TYPE_F32, [64, 3, 1, 1], [4, 256, 768, 768]),
            tensor(sys::GGML_TYPE_F32, [16, 3, 1, 1], [4, 64, 192, 192]),
        ];
        change(&mut tensors);
        let [mut weights, mut activations, mut result] = tensors;
        result.op = sys::GGML_OP_MUL_MAT;
        result.src[0] = &raw mut weights;
        result.src[1] = &raw mut activations;
        // SAFETY: the operands are live.
        unsafe { MulMat::from_op(&result) }.is_some()
    }

    #[test]
    fn product_refuses_strides_that_leave_the_buffer() {
        if InstructionSet::selected_set().is_none() {
            return;
        }
        assert!(is_accepted(|_| {}));
        // With a smaller stride, ggml counts fewer bytes than a row has.
        assert!(!is_accepted(|[weights, ..]| weights.nb[0] = 1));
        assert!(!is_accepted(|[weights, ..]| weights.nb[1] = BLOCK_BYTES));
        assert!(!is_accepted(|[weights, _, result]| {
            weights.ne[1] = 0;
            result.ne[0] = 0;
        }));
        assert!(!is_accepted(|[_, activations, _]| activations.nb[1] = 128));
        // Sizes whose products wrap around.
        assert!(!is_accepted(|[_, activations, result]| {
            for tensor in [activations, result] {
                tensor.ne[1..].copy_from_slice(&[1 << 31, 1 << 31, 2]);
                tensor.nb[1..].copy_from_slice(&[1 << 31, 1 << 62, 0]);
            }
        }));
        assert!(!is_accepted(|[weights, ..]| weights.nb[1] = usize::MAX / 4));
    }
}
