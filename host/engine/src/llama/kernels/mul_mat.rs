//! Matrix products of weights and activations (`GGML_OP_MUL_MAT`).

use std::slice;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{ActivationBlock, BLOCK_SIZE};
use crate::llama::kernels::compute::ComputeParams;
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
        let whole_blocks =
            width.is_multiple_of(format.block_weights()) && rows.is_multiple_of(PANEL_ROWS) && width > 0;
        let contiguous = is_evenly_strided(activations) && is_evenly_strided(operation);
        // On a worker, the shapes come from another machine.
        let shapes_match = activations.ne[0] == weights.ne[0]
            && operation.ne[0] == weights.ne[1]
            && operation.ne[1..] == activations.ne[1..]
            && weights.nb[1] >= width / format.block_weights() * format.block_bytes();
        let columns: i64 = activations.ne[1..].iter().product();
        (whole_blocks && contiguous && shapes_match).then(|| Self {
            isa,
            format,
            weights,
            activations,
            result: operation,
            blocks: width / BLOCK_SIZE,
            columns: usize::try_from(columns).unwrap_or(0),
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
    let stride_is = |dimension: usize, bytes: usize| sizes[dimension] == 1 || strides[dimension] == bytes;
    tensor.type_ == sys::GGML_TYPE_F32
        && strides[0] == size_of::<f32>()
        && strides[1].is_multiple_of(size_of::<f32>())
        && strides[1] >= sizes[0] * size_of::<f32>()
        && stride_is(2, sizes[1] * strides[1])
        && stride_is(3, sizes[2] * sizes[1] * strides[1])
}
