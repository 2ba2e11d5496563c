//! How much memory a tensor takes on a worker: a question that llama.cpp asks for each new number of rows,
//! and waits for the answer, a few times the way there and back. A processor's answer is known here.

/// Bytes of the device's number, before the tensor.
const DEVICE: usize = 4;
/// Where a tensor's kind, its lengths and its strides are (`rpc_tensor`).
const KIND: usize = DEVICE + 8;
const LENGTHS: usize = DEVICE + 20;
const STRIDES: usize = DEVICE + 36;
/// Dimensions of a tensor.
const DIMENSIONS: usize = 4;

/// What a processor answers to the body of `GET_ALLOC_SIZE`, as llama.cpp reads it: the bytes of the tensor
/// and no more (`ggml_nbytes`). `None` for kinds whose numbers come in blocks.
pub(crate) fn on_processor(question: &[u8]) -> Option<[u8; 16]> {
    // Numbers of GGML_TYPE_*: F32, F16, I32, BF16.
    let element = match number(question, KIND)? {
        0 | 26 => 4_u64,
        1 | 30 => 2,
        _ => return None,
    };
    let mut bytes = element;
    for dimension in 0..DIMENSIONS {
        let length = u64::from(number(question, LENGTHS + 4 * dimension)?);
        let stride = u64::from(number(question, STRIDES + 4 * dimension)?);
        match length {
            0 => bytes = 0,
            length => bytes = bytes.checked_add((length - 1).checked_mul(stride)?)?,
        }
    }
    let mut answer = [0; 16];
    answer[..8].copy_from_slice(&8_u64.to_le_bytes());
    answer[8..].copy_from_slice(&bytes.to_le_bytes());
    Some(answer)
}

fn number(question: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(question.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(kind: u32, lengths: [u32; 4], strides: [u32; 4]) -> Vec<u8> {
        let mut question = vec![0; DEVICE + 11 * 296];
        question[KIND..KIND + 4].copy_from_slice(&kind.to_le_bytes());
        for (at, value) in lengths.into_iter().chain(strides).enumerate() {
            question[LENGTHS + 4 * at..LENGTHS + 4 * at + 4].copy_from_slice(&value.to_le_bytes());
        }
        question
    }

    #[test]
    fn a_tensor_takes_its_bytes() {
        let answer = on_processor(&question(0, [576, 17, 1, 1], [4, 2304, 39168, 39168])).unwrap();
        assert_eq!(answer[8..], (576 * 17 * 4_u64).to_le_bytes());
        let answer = on_processor(&question(1, [64, 3, 1, 1], [2, 512, 1536, 1536])).unwrap();
        assert_eq!(answer[8..], (2 + 63 * 2 + 2 * 512_u64).to_le_bytes());
        assert_eq!(on_processor(&question(8, [32, 1, 1, 1], [34, 34, 34, 34])), None);
        assert_eq!(on_processor(&[0; 20]), None);
    }
}
