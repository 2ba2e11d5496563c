//! Attention over a cache, as ggml asks for it.

use std::array::from_fn;
use std::ops::Range;
use std::slice;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::attend::{Head, Row, SIZE, attend, visible};
use crate::llama::kernels::compute::Params;
use crate::llama::kernels::vectors::{LANES, Processor};

/// Rows that share what is read of the cache.
const ROWS: usize = 4;

/// Attention that the kernels take.
pub(crate) struct Attention<'a> {
    processor: Processor,
    queries: &'a sys::ggml_tensor,
    keys: &'a sys::ggml_tensor,
    values: &'a sys::ggml_tensor,
    mask: &'a sys::ggml_tensor,
    result: &'a sys::ggml_tensor,
    scale: f32,
}

impl<'a> Attention<'a> {
    /// `operation`, where it is one. Whether it is must not depend on the number of rows.
    ///
    /// # Safety
    ///
    /// It and its operands are live.
    pub(crate) unsafe fn of(operation: &'a sys::ggml_tensor) -> Option<Self> {
        if operation.op != sys::GGML_OP_FLASH_ATTN_EXT || !operation.src[4].is_null() {
            return None;
        }
        let processor = Processor::chosen()?;
        // SAFETY: operands are live, or none.
        let [queries, keys, values, mask] = from_fn(|index| unsafe { operation.src[index].as_ref() });
        let (queries, keys, values, mask) = (queries?, keys?, values?, mask?);
        let [scale, bias, cap] = from_fn(|index| f32::from_bits(operation.op_params[index] as u32));
        let types = queries.type_ == sys::GGML_TYPE_F32
            && operation.type_ == sys::GGML_TYPE_F32
            && [keys, values, mask].iter().all(|one| one.type_ == sys::GGML_TYPE_F16);
        let packed = |one: &sys::ggml_tensor, size: usize| one.nb[0] == size;
        let fits = |size: i64| size > 0 && size <= SIZE as i64 && size % LANES as i64 == 0;
        let ours = types
            && bias == 0.0
            && cap == 0.0
            && fits(keys.ne[0])
            && fits(values.ne[0])
            && packed(queries, size_of::<f32>())
            && [keys, values, mask].iter().all(|one| packed(one, size_of::<u16>()))
            && agree(queries, keys, values, mask, operation);
        ours.then_some(Self { processor, queries, keys, values, mask, result: operation, scale })
    }

    /// One thread's share.
    ///
    /// # Safety
    ///
    /// All threads of the pool call it.
    pub(crate) unsafe fn compute(&self, params: &Params) {
        let [_, tokens, heads, planes] = self.queries.ne.map(|size| size as usize);
        let kept = self.keys.ne[2] as usize;
        // Rows that look at the same keys: each token's heads of a group.
        let group = heads / kept;
        let shares = (tokens * group).div_ceil(ROWS);
        let mut seen = [const { Vec::new() }; ROWS];
        // SAFETY: all threads of the pool are here.
        for share in unsafe { params.shares(planes * kept * shares) } {
            let (plane, kept, share) = (share / shares / kept, share / shares % kept, share % shares);
            let rows = share * ROWS..((share + 1) * ROWS).min(tokens * group);
            // SAFETY: the rows are this operation's, and no other thread has them.
            unsafe { self.rows(plane, kept, group, rows, &mut seen) };
        }
    }

    /// Computes rows of one head of the cache; `seen` is room for what their tokens see.
    unsafe fn rows(
        &self,
        plane: usize,
        kept: usize,
        group: usize,
        rows: Range<usize>,
        seen: &mut [Vec<u32>],
    ) {
        let first = rows.start / group;
        // SAFETY: places within the operands.
        unsafe {
            for token in first..=(rows.end - 1) / group {
                let mask = at(self.mask, token, 0, plane % self.mask.ne[3] as usize).cast::<u16>();
                let mask = slice::from_raw_parts(mask, self.keys.ne[1] as usize);
                visible(self.processor, mask, &mut seen[token - first]);
            }
            let seen = |row: usize| &seen[row / group - first];
            let row = |row: usize| {
                let (token, query) = (row / group, kept * group + row % group);
                let [size, queries, tokens, _] = self.result.ne.map(|size| size as usize);
                let place = (plane * tokens + token) * queries + query;
                Row {
                    query: at(self.queries, token, query, plane).cast(),
                    out: self.result.data.cast::<f32>().add(place * size),
                    cells: seen(row).len(),
                }
            };
            let (head, mut from) = (self.head(plane, kept), rows.start);
            while from < rows.end {
                // Those go together of which each sees what the one before it sees, and perhaps more.
                let follows = |next: &usize| seen(*next).starts_with(seen(next - 1));
                let count = 1 + (from + 1..rows.end).take_while(follows).count();
                let cells = seen(from + count - 1);
                match count {
                    1 => attend(self.processor, &head, &[row(from)], cells),
                    2 => attend(self.processor, &head, &[row(from), row(from + 1)], cells),
                    3 => attend(self.processor, &head, &[row(from), row(from + 1), row(from + 2)], cells),
                    _ => attend::<ROWS>(self.processor, &head, &from_fn(|index| row(from + index)), cells),
                }
                from += count;
            }
        }
    }

    /// A head of the cache.
    unsafe fn head(&self, plane: usize, kept: usize) -> Head {
        let cache = plane / (self.queries.ne[3] / self.keys.ne[3]) as usize;
        // SAFETY: places within the operands.
        let (keys, values) = unsafe { (at(self.keys, 0, kept, cache), at(self.values, 0, kept, cache)) };
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

/// Whether the shapes are those of attention: a lent worker is told them by somebody else.
fn agree(
    queries: &sys::ggml_tensor,
    keys: &sys::ggml_tensor,
    values: &sys::ggml_tensor,
    mask: &sys::ggml_tensor,
    result: &sys::ggml_tensor,
) -> bool {
    let [size, tokens, heads, planes] = queries.ne;
    let divides = |part: i64, all: i64| part > 0 && all % part == 0;
    size == keys.ne[0]
        && keys.ne[1..] == values.ne[1..]
        && divides(keys.ne[2], heads)
        && divides(keys.ne[3], planes)
        && mask.ne[0] >= keys.ne[1]
        && mask.ne[1] >= tokens
        && mask.ne[2] == 1
        && divides(mask.ne[3], planes)
        && result.ne == [values.ne[0], heads, tokens, planes]
        && (0..3).all(|next| result.nb[next + 1] == result.ne[next] as usize * result.nb[next])
        && result.nb[0] == size_of::<f32>()
}

/// The place of a tensor's row.
unsafe fn at(tensor: &sys::ggml_tensor, second: usize, third: usize, fourth: usize) -> *mut u8 {
    let offset = second * tensor.nb[1] + third * tensor.nb[2] + fourth * tensor.nb[3];
    // SAFETY: the caller says that there is one.
    unsafe { tensor.data.cast::<u8>().add(offset) }
}
