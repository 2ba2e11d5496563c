use super::*;
use crate::value::ElementType;

/// Builds a file.
#[derive(Clone, Default)]
struct Builder {
    pairs: Vec<u8>,
    keys: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Builder {
    fn pair(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.pairs.extend([string(key).as_slice(), &kind.to_le_bytes(), value].concat());
        self.keys += 1;
        self
    }

    fn tensor(mut self, name: &str, sizes: &[u64], kind: u32, offset: u64, bytes: usize) -> Self {
        self.tensors.extend([string(name).as_slice(), &(sizes.len() as u32).to_le_bytes()].concat());
        sizes.iter().for_each(|size| self.tensors.extend(size.to_le_bytes()));
        self.tensors.extend([&kind.to_le_bytes()[..], &offset.to_le_bytes()].concat());
        self.tensor_count += 1;
        self.data.resize(self.data.len().next_multiple_of(32) + bytes, 7);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.keys.to_le_bytes());
        file.extend([&self.pairs[..], &self.tensors].concat());
        file.resize(file.len().next_multiple_of(32), 0);
        file.extend(&self.data);
        file
    }

    fn read(&self) -> Result<Header, GgufError> {
        read(&self.bytes()).map(Option::unwrap)
    }
}

fn read(file: &[u8]) -> Result<Option<Header>, GgufError> {
    Header::read(file, file.len() as u64)
}

fn model() -> Builder {
    let sizes = [5_u32.to_le_bytes(), 2_u32.to_le_bytes(), [0; 4], 4_u32.to_le_bytes(), [0xff; 4]].concat();
    Builder::default()
        .pair("general.architecture", 8, &string("llama"))
        .pair("llama.context_length", 4, &4096_u32.to_le_bytes())
        .pair("llama.attention.causal", 7, &[0])
        .pair("llama.head_count_kv", 9, &sizes)
        .tensor("blk.0.attn_q.weight", &[33], 0, 0, 132)
        .tensor("output.weight", &[64, 2], 8, 160, 136)
}

#[test]
fn header_has_values_tensors_and_the_length_of_the_file() {
    let header = model().read().unwrap();
    assert_eq!(header.text("general.architecture"), Some("llama"));
    assert_eq!(header.number("llama.context_length"), Some(4096));
    assert_eq!(header.value("llama.attention.causal"), Some(&Value::Flag(false)));
    let array = Array { element: ElementType::Int32, count: 2, numbers: vec![4, 0] };
    assert_eq!(header.array("llama.head_count_kv"), Some(&array));
    assert_eq!((header.text("none"), header.number("general.architecture")), (None, None));
    assert_eq!(header.tensors[1].sizes, [64, 2]);
    assert_eq!(header.file_length().unwrap(), model().bytes().len() as u64);
    assert_eq!(header.data_offset % 32, 0);
}

#[test]
fn reader_skips_values_of_all_types() {
    let mut builder = Builder::default();
    for (kind, width) in
        [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)]
    {
        builder = builder.pair(&format!("scalar{kind}"), kind, &vec![0xff; width]);
        let array = [&kind.to_le_bytes()[..], &600_u64.to_le_bytes(), &vec![0xff; 600 * width]].concat();
        builder = builder.pair(&format!("array{kind}"), 9, &array);
        let nested = [&9_u32.to_le_bytes()[..], &1_u64.to_le_bytes(), &array].concat();
        builder = builder.pair(&format!("nested{kind}"), 9, &nested);
    }
    let texts = [&8_u32.to_le_bytes()[..], &2_u64.to_le_bytes(), &string("a"), &string("")].concat();
    let header = builder.pair("texts", 9, &texts).pair("last", 8, &string("\x1b after them")).read().unwrap();
    assert_eq!(header.text("last"), Some("  after them"));
    assert_eq!(header.array("texts").unwrap().element, ElementType::Text);
    assert_eq!(header.array("array10").unwrap().numbers.len(), 512);
    assert!(header.array("array6").unwrap().numbers.is_empty());
}

#[test]
fn other_file_is_none() {
    let mut big_endian = model().bytes();
    big_endian[4..8].copy_from_slice(&[0, 0, 0, 3]);
    for file in [&b""[..], b"GGUF", &[0; 100], b"GGUF\x01\0\0\0................", &big_endian] {
        assert!(matches!(read(file), Ok(None)), "{file:?}");
    }
}

#[test]
fn broken_header_names_its_defect() {
    let file = model().bytes();
    let header = usize::try_from(read(&file).unwrap().unwrap().data_offset).unwrap();
    for length in 24..header - 32 {
        let error = read(&file[..length]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated), "{length}: {error}");
    }
    let text = |count: u64| Builder::default().pair("k", 8, &count.to_le_bytes()).read();
    assert!(matches!(text(u64::MAX), Err(GgufError::HeaderTooLong)));
    assert!(matches!(text(1 << 20), Err(GgufError::Truncated)));
    let array = |kind: u32, count: u64| {
        let array = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
        Builder::default().pair("k", 9, &array).read()
    };
    assert!(matches!(array(12, u64::MAX), Err(GgufError::HeaderTooLong)));
    assert!(matches!(array(8, u64::MAX), Err(GgufError::HeaderTooLong)));
    assert!(matches!(array(8, 1000), Err(GgufError::Truncated)));
    assert!(matches!(array(13, 1), Err(GgufError::UnknownType { kind: 13, .. })));
    let unknown = Builder::default().pair("k", 13, &[]).read();
    assert!(matches!(unknown, Err(GgufError::UnknownType { .. })));
    let deep = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat().repeat(9);
    assert!(matches!(Builder::default().pair("k", 9, &deep).read(), Err(GgufError::NestedTooDeep(_))));
    for (place, error) in [(8, "tensors"), (16, "metadata keys")] {
        let mut many = file.clone();
        many[place..place + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(read(&many).unwrap_err().to_string().contains(error));
    }
    for wrong in [0_u32, 3, 1 << 21] {
        let builder = Builder::default().pair("general.alignment", 4, &wrong.to_le_bytes());
        assert!(matches!(builder.read(), Err(GgufError::BadAlignment(_))), "{wrong}");
    }
}

#[test]
fn file_length_refuses_tensors_that_no_loader_can_place() {
    let length = |builder: Builder| builder.read().unwrap().file_length();
    let overlap = model().tensor("more", &[32], 0, 160, 128);
    assert!(matches!(length(overlap), Err(GgufError::BadOffset { offset: 160, expected: 320, .. })));
    let twice = model().tensor("output.weight", &[32], 0, 320, 128);
    assert!(matches!(length(twice), Err(GgufError::Duplicate(_))));
    let twice = model().pair("general.architecture", 8, &string("gpt2"));
    assert!(matches!(length(twice), Err(GgufError::Duplicate(_))));
    let kind = model().tensor("more", &[32], 999, 320, 128);
    assert!(matches!(length(kind), Err(GgufError::UnknownTensorType { kind: 999, .. })));
    let row = model().tensor("more", &[33], 8, 320, 128);
    assert!(matches!(length(row), Err(GgufError::BadShape { .. })));
}

/// Whatever the damage, reading ends, and the length of the file is at least the header's.
#[test]
fn damaged_header_never_panics() {
    let clean = model().bytes();
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
        if let Ok(Some(header)) = read(&file) {
            assert!(header.file_length().is_err() || header.file_length().unwrap() >= header.data_offset);
        }
    }
}
