//! Flash attention over a KV cache (`GGML_OP_FLASH_ATTN_EXT`).

use std::array::from_fn;
use std::ops::Range;
use std::slice;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::attention::kernel::{Head, MAX_HEAD_SIZE, QueryRow, attend, visible_cells};
use crate::llama::kernels::compute::{ComputeParams, has_valid_size};
use crate::llama::kernels::simd::{InstructionSet, LANES};

/// The maximum number of query rows that share a load of the cache.
const MAX_QUERY_ROWS: usize = 4;

/// An attention operation that the kernels support.
pub(crate) struct Attention<'a> {
    isa: InstructionSet,
    queries: &'a sys::ggml_tensor,
    keys: &'a sys::ggml_tensor,
    values: &'a sys::ggml_tensor,
    mask: &'a sys::ggml_tensor,
    result: &'a sys::ggml_tensor,
    scale: f32,
}

impl<'a> Attention<'a> {
    /// `operation` as attention, if the kernels support it. This decision must not depend on the number of
    /// rows.
    ///
    /// # Safety
    ///
    /// `operation` and its operands are live.
    pub(crate) unsafe fn from_op(operation: &'a sys::ggml_tensor) -> Option<Self> {
        if operation.op != sys::GGML_OP_FLASH_ATTN_EXT || !operation.src[4].is_null() {
            return None;
        }
        let isa = InstructionSet::selected_set()?;
        // SAFETY: operands are live or null.
        let [queries, keys, values, mask] = from_fn(|index| unsafe { operation.src[index].as_ref() });
        let (queries, keys, values, mask) = (queries?, keys?, values?, mask?);
        let [scale, bias, cap] = from_fn(|index| f32::from_bits(operation.op_params[index] as u32));
        let types_match = queries.type_ == sys::GGML_TYPE_F32
            && operation.type_ == sys::GGML_TYPE_F32
            && [keys, values, mask].iter().all(|tensor| tensor.type_ == sys::GGML_TYPE_F16);
        let is_packed = |tensor: &sys::ggml_tensor, size: usize| tensor.nb[0] == size;
        let fits = |size: i64| size > 0 && size <= MAX_HEAD_SIZE as i64 && size % LANES as i64 == 0;
        let supported = types_match
            && bias == 0.0
            && cap == 0.0
            && fits(keys.ne[0])
            && fits(values.ne[0])
            && is_packed(queries, size_of::<f32>())
            && [keys, values, mask].iter().all(|tensor| is_packed(tensor, size_of::<u16>()))
            && shapes_match(queries, keys, values, mask, operation);
        supported.then_some(Self { isa, queries, keys, values, mask, result: operation, scale })
    }

    /// Computes one thread's chunks.
    ///
    /// # Safety
    ///
    /// All threads of the pool call this function.
    pub(crate) unsafe fn compute(&self, params: &ComputeParams) {
        let [_, tokens, heads, batches] = self.queries.ne.map(|size| size as usize);
        let kv_heads = self.keys.ne[2] as usize;
        // Rows with the same keys: the query heads of a KV head, for each token.
        let group = heads / kv_heads;
        let chunks = (tokens * group).div_ceil(MAX_QUERY_ROWS);
        let mut visible = [const { Vec::new() }; MAX_QUERY_ROWS];
        // SAFETY: all threads of the pool call this function.
        for chunk in unsafe { params.work_chunks(batches * kv_heads * chunks) } {
            let (batch, kv_head, chunk) =
                (chunk / chunks / kv_heads, chunk / chunks % kv_heads, chunk % chunks);
            let rows = chunk * MAX_QUERY_ROWS..((chunk + 1) * MAX_QUERY_ROWS).min(tokens * group);
            // SAFETY: the rows belong to this operation, and no other thread computes them.
            unsafe { self.compute_rows(batch, kv_head, group, rows, &mut visible) };
        }
    }

    /// Computes query rows of one KV head. `visible` is a buffer for the cells that their tokens see.
    unsafe fn compute_rows(
        &self,
        batch: usize,
        kv_head: usize,
        group: usize,
        rows: Range<usize>,
        visible: &mut [Vec<u32>],
    ) {
        let first = rows.start / group;
        // SAFETY: all offsets lie within the operands.
        unsafe {
            for token in first..=(rows.end - 1) / group {
                let mask = row_pointer(self.mask, token, 0, batch % self.mask.ne[3] as usize).cast::<u16>();
                let mask = slice::from_raw_parts(mask, self.keys.ne[1] as usize);
                visible_cells(self.isa, mask, &mut visible[token - first]);
            }
            let visible = |row: usize| &visible[row / group - first];
            let row = |row: usize| {
                let (token, query) = (row / group, kv_head * group + row % group);
                let [size, queries, tokens, _] = self.result.ne.map(|size| size as usize);
                let index = (batch * tokens + token) * queries + query;
                QueryRow {
                    query: row_pointer(self.queries, token, query, batch).cast(),
                    out: self.result.data.cast::<f32>().add(index * size),
                    cells: visible(row).len(),
                }
            };
            let (head, mut from) = (self.head(batch, kv_head), rows.start);
            while from < rows.end {
                // Groups rows of which each sees at least the cells of the row before it.
                let extends_previous = |next: &usize| visible(*next).starts_with(visible(next - 1));
                let count = 1 + (from + 1..rows.end).take_while(extends_previous).count();
                let cells = visible(from + count - 1);
                match count {
                    1 => attend(self.isa, &head, &[row(from)], cells),
                    2 => attend(self.isa, &head, &[row(from), row(from + 1)], cells),
                    3 => attend(self.isa, &head, &[row(from), row(from + 1), row(from + 2)], cells),
                    _ => {
                        attend::<MAX_QUERY_ROWS>(self.isa, &head, &from_fn(|index| row(from + index)), cells)
                    }
                }
                from += count;
            }
        }
    }

    /// A KV head of the cache.
    unsafe fn head(&self, batch: usize, kv_head: usize) -> Head {
        let kv_batch = batch / (self.queries.ne[3] / self.keys.ne[3]) as usize;
        // SAFETY: all offsets lie within the operands.
        let (keys, values) = unsafe {
            (row_pointer(self.keys, 0, kv_head, kv_batch), row_pointer(self.values, 0, kv_head, kv_batch))
        };
        Head {
            keys,
            values,
            key_stride: self.keys.nb[1],
            value_stride: self.values.nb[1],
            key_size: self.keys.ne[0] as usize,
            value_size: self.values.ne[0] as usize,
            scale: self.scale,
        }
    }
}

/// True if the shapes are those of attention. On a worker, the shapes come from another machine. ggml checks only that
/// `ggml_nbytes` of each tensor fits in its buffer.
fn shapes_match(
    queries: &sys::ggml_tensor,
    keys: &sys::ggml_tensor,
    values: &sys::ggml_tensor,
    mask: &sys::ggml_tensor,
    result: &sys::ggml_tensor,
) -> bool {
    let [size, tokens, heads, batches] = queries.ne;
    let divides = |part: i64, whole: i64| part > 0 && whole % part == 0;
    size == keys.ne[0]
        && keys.ne[1..] == values.ne[1..]
        && divides(keys.ne[2], heads)
        && divides(keys.ne[3], batches)
        && mask.ne[0] >= keys.ne[1]
        && mask.ne[1] >= tokens
        && mask.ne[2] == 1
        && divides(mask.ne[3], batches)
        && result.ne == [values.ne[0], heads, tokens, batches]
        && (0..3).all(|next| result.nb[next + 1] == result.ne[next] as usize * result.nb[next])
        && result.nb[0] == size_of::<f32>()
        && [queries, keys, values, mask, result].iter().all(|tensor| has_valid_size(tensor))
}

/// The address of a row of a tensor.
unsafe fn row_pointer(tensor: &sys::ggml_tensor, second: usize, third: usize, fourth: usize) -> *mut u8 {
    let offset = second * tensor.nb[1] + third * tensor.nb[2] + fourth * tensor.nb[3];
    // SAFETY: the caller ensures that the tensor has this row.
    unsafe { tensor.data.cast::<u8>().add(offset) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(ne: [i64; 4], nb: [usize; 4]) -> sys::ggml_tensor {
        // SAFETY: zeros and null pointers are valid for all fields.
        let empty = unsafe { std::mem::zeroed::<sys::ggml_tensor>() };
        sys::ggml_tensor { ne, nb, ..empty }
    }

    #[test]
    fn attention_refuses_sizes_that_wrap_around() {
        let queries = tensor([64, 3, 4, 1], [4, 256, 768, 3072]);
        let values = tensor([64, 32, 2, 1], [2, 128, 4096, 8192]);
        let mask = tensor([32, 3, 1, 1], [2, 64, 192, 192]);
        let result = tensor([64, 4, 3, 1], [4, 256, 1024, 3072]);
        let accepts = |keys: &sys::ggml_tensor, mask: &sys::ggml_tensor| {
            shapes_match(&queries, keys, &values, mask, &result)
        };
        let keys = tensor([64, 32, 2, 1], [2, 128, 4096, 8192]);
        assert!(accepts(&keys, &mask));
        assert!(
            !accepts(&tensor(keys.ne, [2, usize::MAX / 31 - 4, 4096, 8192]), &mask),
            "the last key wraps"
        );
        assert!(!accepts(&keys, &tensor(mask.ne, [2, usize::MAX / 2, 192, 192])), "the last mask wraps");
        assert!(!accepts(&keys, &tensor([31, 3, 1, 1], mask.nb)), "the mask is too short");
    }
}
