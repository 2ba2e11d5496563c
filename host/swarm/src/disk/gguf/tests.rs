use crate::disk::digest::Digest;
use crate::disk::fixture::{Model, random_bytes};
use crate::disk::gguf::*;

fn read(file: &[u8]) -> Result<Option<Gguf>, GgufError> {
    Gguf::read(file, file.len() as u64)
}

#[test]
fn incomplete_download_is_refused() {
    let file = Model::layered("m", "t").bytes();
    let header = usize::try_from(read(&file).unwrap().unwrap().data_offset).unwrap();
    assert!(matches!(read(&file[..header + 1000]), Err(GgufError::TensorPastEnd(_))));
    assert!(matches!(read(b"not a GGUF, but long enough"), Ok(None)));
}

#[test]
fn header_yields_facts_and_tensors() {
    let model = Model::layered("Tiny Test", "{{ messages }}").number("other.context_length", 7);
    let file = model.bytes();
    let gguf = read(&file).unwrap().unwrap();
    assert_eq!(gguf.facts.architecture.as_deref(), Some("llama"));
    assert_eq!(gguf.facts.name.as_deref(), Some("Tiny Test"));
    assert_eq!(gguf.facts.quantization().unwrap(), "Q4_K_M");
    assert_eq!(gguf.facts.context, Some(4096));
    assert_eq!(gguf.facts.chat_template, Some(Digest::of(b"{{ messages }}")));
    assert_eq!(gguf.tensors.len(), 15);
    assert_eq!(gguf.tensors[0].offset, gguf.data_offset);
    assert_eq!(gguf.tensors[2].layer, Some(0));
    assert_eq!(gguf.tensors[13].layer, None);
    for pair in gguf.tensors.windows(2) {
        assert_eq!(pair[0].offset + pair[0].bytes, pair[1].offset);
    }
    let last = &gguf.tensors[14];
    assert_eq!(last.offset + last.bytes, file.len() as u64);
    let at = usize::try_from(last.offset).unwrap();
    assert_eq!(file[at..at + 700_000], random_bytes(3, 700_000));
}

/// Whatever the damage, the tensors cover the file from the first tensor to its end, without gaps.
#[test]
fn damaged_header_never_panics() {
    let model = Model::new("fuzz").text("tokenizer.chat_template", "t").tensor("blk.0.a", vec![7; 500]);
    let clean = model.tensor("blk.1.a", vec![8; 300]).tensor("output", vec![9; 100]).bytes();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut file = clean.clone();
        for _ in 0..random.usize(1..6) {
            let at = random.usize(..file.len());
            match random.u8(..4) {
                0 => file.truncate(at.max(24)),
                1 => file[at..].iter_mut().take(8).for_each(|byte| *byte = 0xff),
                2 => file[at] = random.u8(..),
                _ => file[at] ^= 1 << random.u8(..8),
            }
        }
        let size = if random.bool() { file.len() as u64 } else { random.u64(24..) };
        if let Ok(Some(gguf)) = Gguf::read(&file[..], size) {
            let sum: u64 = gguf.tensors.iter().map(|tensor| tensor.bytes).sum();
            assert_eq!(gguf.data_offset + sum, size);
        }
    }
}
