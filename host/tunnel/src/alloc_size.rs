//! The memory that a tensor takes on a worker.
//!
//! llama.cpp asks a worker for this size (`GET_ALLOC_SIZE`) whenever the number of rows changes, and waits for several
//! round trips. For workers that compute on a CPU the host calculates the reply itself.

/// Bytes of the device index before the tensor.
const DEVICE_BYTES: usize = 4;
/// Offsets of a tensor's type, lengths and strides (`rpc_tensor`).
const TYPE_OFFSET: usize = DEVICE_BYTES + 8;
const LENGTHS_OFFSET: usize = DEVICE_BYTES + 20;
const STRIDES_OFFSET: usize = DEVICE_BYTES + 36;
/// The number of dimensions of a tensor (`GGML_MAX_DIMS`).
const DIMENSIONS: usize = 4;

/// Returns a CPU's reply to the body of `GET_ALLOC_SIZE`, including its length prefix. The size is `ggml_nbytes` of the
/// tensor. `None` for types whose values are stored in blocks.
pub(crate) fn cpu_reply(request: &[u8]) -> Option<[u8; 16]> {
    // Type numbers of ggml (GGML_TYPE_*): F32 0, F16 1, I32 26, BF16 30.
    let value_bytes = match number(request, TYPE_OFFSET)? {
        0 | 26 => 4_u64,
        1 | 30 => 2,
        _ => return None,
    };
    let mut bytes = value_bytes;
    for dimension in 0..DIMENSIONS {
        let length = u64::from(number(request, LENGTHS_OFFSET + 4 * dimension)?);
        let stride = u64::from(number(request, STRIDES_OFFSET + 4 * dimension)?);
        match length {
            0 => bytes = 0,
            length => bytes = bytes.checked_add((length - 1).checked_mul(stride)?)?,
        }
    }
    let mut reply = [0; 16];
    reply[..8].copy_from_slice(&8_u64.to_le_bytes());
    reply[8..].copy_from_slice(&bytes.to_le_bytes());
    Some(reply)
}

fn number(request: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(request.get(offset..offset + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tensor_type: u32, lengths: [u32; 4], strides: [u32; 4]) -> Vec<u8> {
        let mut request = vec![0; DEVICE_BYTES + 11 * 296];
        request[TYPE_OFFSET..TYPE_OFFSET + 4].copy_from_slice(&tensor_type.to_le_bytes());
        for (index, value) in lengths.into_iter().chain(strides).enumerate() {
            let offset = LENGTHS_OFFSET + 4 * index;
            request[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        request
    }

    #[test]
    fn cpu_reply_is_the_size_of_the_tensor() {
        let reply = cpu_reply(&request(0, [576, 17, 1, 1], [4, 2304, 39168, 39168])).unwrap();
        assert_eq!(reply[8..], (576 * 17 * 4_u64).to_le_bytes());
        let reply = cpu_reply(&request(1, [64, 3, 1, 1], [2, 512, 1536, 1536])).unwrap();
        assert_eq!(reply[8..], (2 + 63 * 2 + 2 * 512_u64).to_le_bytes());
        assert_eq!(cpu_reply(&request(8, [32, 1, 1, 1], [34, 34, 34, 34])), None);
        assert_eq!(cpu_reply(&[0; 20]), None);
    }
}
