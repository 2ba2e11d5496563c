//! A product of weights and activations, as ggml asks for it.

use std::slice;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{BLOCK, Block};
use crate::llama::kernels::compute::Params;
use crate::llama::kernels::dot::ROWS;
use crate::llama::kernels::panel::{Kind, Panel};
use crate::llama::kernels::vectors::Processor;

/// Shares of a product for each thread: one that is held up leaves its own to others.
const SHARES: usize = 8;

/// A product of weights and activations that the kernels take.
pub(crate) struct Product<'a> {
    processor: Processor,
    kind: Kind,
    weights: &'a sys::ggml_tensor,
    activations: &'a sys::ggml_tensor,
    result: &'a sys::ggml_tensor,
    /// Blocks of 32 values in a row and in a column.
    blocks: usize,
    columns: usize,
}

impl<'a> Product<'a> {
    /// `operation`, where it is one. Whether it is must not depend on the number of columns.
    ///
    /// # Safety
    ///
    /// It and its operands are live.
    pub(crate) unsafe fn of(operation: &'a sys::ggml_tensor) -> Option<Self> {
        if operation.op != sys::GGML_OP_MUL_MAT {
            return None;
        }
        let processor = Processor::chosen()?;
        // SAFETY: a product has two operands.
        let (weights, activations) = unsafe { (operation.src[0].as_ref()?, operation.src[1].as_ref()?) };
        let kind = Kind::of(weights.type_)?;
        let [width, rows, 1, 1] = weights.ne.map(|size| usize::try_from(size).unwrap_or(0)) else {
            return None;
        };
        let whole = width.is_multiple_of(kind.weights()) && rows.is_multiple_of(ROWS) && width > 0;
        let plain = is_plain(activations) && is_plain(operation);
        // A lent worker is told shapes by somebody else.
        let agree = activations.ne[0] == weights.ne[0]
            && operation.ne[0] == weights.ne[1]
            && operation.ne[1..] == activations.ne[1..]
            && weights.nb[1] >= width / kind.weights() * kind.bytes();
        let columns: i64 = activations.ne[1..].iter().product();
        (whole && plain && agree).then(|| Self {
            processor,
            kind,
            weights,
            activations,
            result: operation,
            blocks: width / BLOCK,
            columns: usize::try_from(columns).unwrap_or(0),
        })
    }

    /// Bytes for the activations, quantized.
    pub(crate) fn work_size(&self) -> usize {
        self.columns * self.blocks * size_of::<Block>()
    }

    /// One thread's share.
    ///
    /// # Safety
    ///
    /// All threads of the pool call it, with as much memory as [`Product::work_size`] says.
    pub(crate) unsafe fn compute(&self, params: &Params) {
        let (thread, threads) = (params.thread as usize, params.threads as usize);
        let all = self.columns * self.blocks;
        let work = params.work.cast::<Block>();
        for index in thread * all / threads..(thread + 1) * all / threads {
            // SAFETY: the value is one of the column's blocks, the place one of `all`, and no other
            // thread has the same one. ggml aligns its memory for vectors.
            unsafe {
                let column =
                    self.activations.data.cast::<u8>().add(index / self.blocks * self.activations.nb[1]);
                let values = column.cast::<[f32; BLOCK]>().add(index % self.blocks);
                work.add(index).write(self.kind.quantize(&*values));
            }
        }
        let panels = self.weights.ne[1] as usize / ROWS;
        let share = panels.div_ceil(threads * SHARES);
        // SAFETY: all threads of the pool are here.
        let shares = unsafe { params.shares(panels.div_ceil(share)) };
        // SAFETY: what the threads wrote is visible to all from here on.
        let activations = unsafe { slice::from_raw_parts(work, all) };
        for number in shares {
            let (first, end) = (number * share, ((number + 1) * share).min(panels));
            for panel in first..end {
                // Threads that are equally fast take shares in turn.
                let next = if panel + 1 < end { panel + 1 } else { first + threads * share };
                // SAFETY: the panel is one of the weights'; no other thread has it.
                unsafe { self.panel(panel, next, activations) };
            }
        }
    }

    /// Computes sixteen rows; `next` is the panel that probably follows.
    unsafe fn panel(&self, panel: usize, next: usize, activations: &[Block]) {
        let stride = self.weights.nb[1];
        let weights = self.weights.data.cast::<u8>().cast_const();
        // SAFETY: the caller's panel is within the weights, which are of this kind; the result has these
        // rows, and as many columns as the activations.
        unsafe {
            let panel = Panel {
                weights: weights.add(panel * ROWS * stride),
                stride,
                next: weights.wrapping_add(next * ROWS * stride),
                blocks: self.blocks,
                activations,
                out: self.result.data.cast::<f32>().add(panel * ROWS),
                apart: self.result.nb[1] / size_of::<f32>(),
            };
            self.kind.multiply(self.processor, &panel);
        }
    }
}

/// Floats in columns that are all equally far from the next.
fn is_plain(tensor: &sys::ggml_tensor) -> bool {
    let (sizes, strides) = (tensor.ne.map(|size| size as usize), tensor.nb);
    // Where there is but one, how far the next would be says nothing.
    let apart = |dimension: usize, wanted: usize| sizes[dimension] == 1 || strides[dimension] == wanted;
    tensor.type_ == sys::GGML_TYPE_F32
        && strides[0] == size_of::<f32>()
        && strides[1].is_multiple_of(size_of::<f32>())
        && strides[1] >= sizes[0] * size_of::<f32>()
        && apart(2, sizes[1] * strides[1])
        && apart(3, sizes[2] * sizes[1] * strides[1])
}
