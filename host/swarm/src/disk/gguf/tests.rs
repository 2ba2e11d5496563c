use crate::disk::digest::Digest;
use crate::disk::fixture::{Model, random_bytes};
use crate::disk::gguf::*;

fn read(file: &[u8]) -> Result<Option<Gguf>, GgufError> {
    Gguf::read(file, file.len() as u64)
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
    assert_eq!(gguf.tensors[2].layer(), Some(0));
    assert_eq!(gguf.tensors[13].layer(), None);
    for pair in gguf.tensors.windows(2) {
        assert_eq!(pair[0].offset + pair[0].bytes, pair[1].offset);
    }
    let last = &gguf.tensors[14];
    assert_eq!(last.offset + last.bytes, file.len() as u64);
    let at = usize::try_from(last.offset).unwrap();
    assert_eq!(file[at..at + 700_000], random_bytes(3, 700_000));
}

#[test]
fn alignment_comes_from_the_header() {
    let file = Model::new("m").number("general.alignment", 4096).tensor("a", vec![1; 5000]).bytes();
    let padded = [&file[..], &[0; 8192]].concat();
    assert_eq!(read(&padded).unwrap().unwrap().data_offset, 4096);
    for wrong in [0, 3, 1 << 21] {
        let file = Model::new("m").number("general.alignment", wrong).bytes();
        assert!(matches!(read(&file), Err(GgufError::BadAlignment(_))), "{wrong}");
    }
}

#[test]
fn reader_skips_values_of_all_types() {
    let mut model = Model::new("m");
    for (kind, width) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)]
    {
        model = model.pair("scalar", kind, &vec![0xff; width]);
        let array = [&kind.to_le_bytes()[..], &3_u64.to_le_bytes(), &vec![0xff; 3 * width]].concat();
        model = model.pair("array", 9, &array);
        let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &array].concat();
        model = model.pair("nested", 9, &nested);
    }
    let file = model.text("general.name", "after them").tensor("a", vec![0; 64]).bytes();
    let gguf = read(&file).unwrap().unwrap();
    assert_eq!(gguf.facts.name.as_deref(), Some("after them"));
    assert_eq!(gguf.tensors.len(), 1);
}

#[test]
fn other_file_is_none() {
    let mut big_endian = Model::new("m").bytes();
    big_endian[4..8].copy_from_slice(&[0, 0, 0, 3]);
    for file in [&b""[..], b"GGUF", &[0; 100], b"GGUF\x01\0\0\0................", &big_endian] {
        assert!(matches!(read(file), Ok(None)), "{file:?}");
    }
}

#[test]
fn broken_header_names_its_defect() {
    let file = Model::layered("m", "t").bytes();
    let header = usize::try_from(read(&file).unwrap().unwrap().data_offset).unwrap();
    for length in 24..header - 32 {
        let error = read(&file[..length]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated), "{length}: {error}");
    }
    // An incomplete download.
    assert!(matches!(read(&file[..header + 1000]), Err(GgufError::TensorPastEnd(_))));

    let text = |count: u64| Model::new("m").pair("k", 8, &count.to_le_bytes()).bytes();
    assert!(matches!(read(&text(u64::MAX)), Err(GgufError::Truncated)));
    let array = |kind: u32, count: u64| {
        let array = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
        Model::new("m").pair("k", 9, &array).bytes()
    };
    assert!(matches!(read(&array(12, u64::MAX)), Err(GgufError::Truncated)));
    assert!(matches!(read(&array(8, u64::MAX)), Err(GgufError::Truncated)));
    assert!(matches!(read(&array(13, 1)), Err(GgufError::UnknownType { kind: 13, .. })));
    assert!(matches!(read(&Model::new("m").pair("k", 13, &[]).bytes()), Err(GgufError::UnknownType { .. })));
    let deep = 9_u32.to_le_bytes().iter().chain(&1_u64.to_le_bytes()).copied().collect::<Vec<_>>().repeat(9);
    assert!(matches!(read(&Model::new("m").pair("k", 9, &deep).bytes()), Err(GgufError::NestedTooDeep(_))));
    let mut many = file;
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(&many), Err(GgufError::TooManyTensors(_))));
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
