//! Manifests: building, parsing, checking and sidecars.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tightwad_swarm::disk::{Block, DEFAULT_PIECE_SIZE, Digest, LayersError, Manifest, ManifestError, Store};

use super::fixture::{Model, random_bytes};
use super::{hash_with_sidecar, manifest, wait_for_clock_tick};

#[test]
fn equal_files_have_equal_manifests() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::layered("Tiny Test", "{{ messages }}");
    let (a, b) = (model.save(directory.path(), "a.gguf"), model.save(directory.path(), "other"));
    let hashed = AtomicU64::new(0);
    let progress = |bytes| {
        hashed.fetch_add(bytes, Ordering::Relaxed);
    };
    let first = Manifest::build(&a, DEFAULT_PIECE_SIZE, None, &progress).unwrap();
    let second = Manifest::build(&b, DEFAULT_PIECE_SIZE, None, &|_| ()).unwrap();
    assert_eq!(first.to_json(), second.to_json());
    assert_eq!(first.name(), "Tiny-Test-Q4_K_M");
    assert_eq!(hashed.into_inner(), first.size());
    assert_eq!(Manifest::parse(&first.to_json()).unwrap(), first);

    let renamed = Manifest::build(&a, DEFAULT_PIECE_SIZE, Some("../mine"), &|_| ()).unwrap();
    assert_eq!((renamed.name(), renamed.root()), ("mine", first.root()));
    assert_ne!(Manifest::build(&a, DEFAULT_PIECE_SIZE / 2, None, &|_| ()).unwrap().root(), first.root());
}

/// A change of the format must be noticed: users pin roots in their scripts.
#[test]
fn manifest_format_is_stable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some notes.txt");
    fs::write(&path, vec![b'x'; 5000]).unwrap();
    let manifest = Manifest::build(&path, 4096, None, &|_| ()).unwrap();
    let (a, b) = (Digest::of(&[b'x'; 4096]), Digest::of(&[b'x'; 904]));
    let json = format!(
        r#"{{"version":1,"name":"some-notes","size":5000,"largest_piece":4096,"facts":{{}},"pieces":[{{"sha256":"{a}","blocks":[[4096,"{a}"]]}},{{"sha256":"{b}","blocks":[[904,"{b}"]]}}]}}"#
    );
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), json);
    assert_eq!(
        manifest.root().to_string(),
        "1b8fa7e0b4cc62fd2e141ebec447e8ad36c5c59c7e351b7640bd6e6e3966d54d"
    );
}

#[test]
fn digests_match_the_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::layered("m", "t");
    let file = model.bytes();
    let manifest = manifest(&model.save(directory.path(), "m.gguf"));
    let mut at = 0;
    for piece in manifest.pieces() {
        let bytes = &file[at..at + usize::try_from(piece.length).unwrap()];
        assert_eq!((piece.offset, piece.digest), (at as u64, Digest::of(bytes)));
        let mut remaining = bytes;
        for block in &piece.blocks {
            let (bytes, behind) = remaining.split_at(block.length as usize);
            assert_eq!(block.digest, Digest::of(bytes));
            remaining = behind;
        }
        at += bytes.len();
    }
    assert_eq!(at, file.len());
}

#[test]
fn header_change_changes_one_piece() {
    let directory = tempfile::tempdir().unwrap();
    let of = |template: &str| manifest(&Model::layered("m", template).save(directory.path(), "m.gguf"));
    let before = of("short");
    for template in ["other", &"long ".repeat(1000)] {
        let after = of(template);
        assert_ne!(after.root(), before.root());
        assert_ne!(after.pieces()[0].digest, before.pieces()[0].digest);
        assert_eq!(after.pieces().len(), before.pieces().len());
        for (after, before) in after.pieces().iter().zip(before.pieces()).skip(1) {
            assert_eq!((after.digest, &after.blocks), (before.digest, &before.blocks));
        }
    }
}

#[test]
fn unchanged_tensor_keeps_its_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::layered("m", "t");
    let before = manifest(&model.save(directory.path(), "a.gguf"));
    // The tensors before the others have another size.
    let other = model
        .tensor("token_embd.weight", random_bytes(50, 900_000))
        .tensor("blk.0.attn_q.weight", random_bytes(51, 77));
    let after = manifest(&other.save(directory.path(), "b.gguf"));
    let blocks = |manifest: &Manifest| -> Vec<Block> {
        manifest.pieces().iter().flat_map(|piece| piece.blocks.clone()).collect()
    };
    let (before, after) = (blocks(&before), blocks(&after));
    let equal_blocks: Vec<&Block> = before.iter().filter(|block| after.contains(block)).collect();
    // Four large tensors of two blocks, the small tensors of three layers, and the output.
    assert_eq!(equal_blocks.len(), 4 * 2 + 3 + 1);
}

#[test]
fn layers_map_to_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let model = Model::layered("m", "t");
    let file = model.bytes();
    let path = model.save(directory.path(), "m.gguf");
    let manifest = Manifest::build(&path, 1 << 20, None, &|_| ()).unwrap();
    let header = &file[..usize::try_from(manifest.pieces()[0].length).unwrap()];
    // Piece 0: header. 1 and 2: embeddings. Per layer: small tensors, and two pieces of a large one. Last:
    // the rest.
    assert_eq!(manifest.pieces().len(), 1 + 2 + 4 * 3 + 1);
    assert_eq!(manifest.layer_count(header).unwrap(), 4);
    assert_eq!(manifest.pieces_of_layers(header, 1..3).unwrap(), [0, 6, 7, 8, 9, 10, 11]);
    assert_eq!(manifest.pieces_of_layers(header, 0..4).unwrap().len(), 13);
    assert_eq!(manifest.pieces_outside_layers(header).unwrap(), [0, 1, 2, 15]);
    for range in [3..5, 2..2, 4..5] {
        let error = manifest.pieces_of_layers(header, range).unwrap_err();
        assert!(error.to_string().ends_with("the model has layers 0..4"), "{error}");
    }
    let error = manifest.pieces_of_layers(&header[1..], 0..1).unwrap_err();
    assert!(matches!(error, LayersError::WrongHeader), "{error}");

    fs::write(&path, random_bytes(1, 5000)).unwrap();
    let manifest = Manifest::build(&path, DEFAULT_PIECE_SIZE, None, &|_| ()).unwrap();
    let error = manifest.pieces_of_layers(&random_bytes(1, 5000), 0..1).unwrap_err();
    assert!(matches!(error, LayersError::NotGguf), "{error}");
}

#[test]
fn build_refuses_unusable_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let of = |piece| Manifest::build(&path, piece, None, &|_| ()).unwrap_err();
    assert!(matches!(of(DEFAULT_PIECE_SIZE), ManifestError::Read { .. }));
    fs::write(&path, b"").unwrap();
    assert!(matches!(of(DEFAULT_PIECE_SIZE), ManifestError::Empty(_)));
    fs::write(&path, &Model::layered("m", "t").bytes()[..5000]).unwrap();
    let error = of(DEFAULT_PIECE_SIZE).to_string();
    assert!(error.contains("lies behind the end of the file: the file is incomplete"), "{error}");
    assert!(matches!(of(1000), ManifestError::PieceSize(1000)));
    let error = Manifest::build(directory.path(), DEFAULT_PIECE_SIZE, None, &|_| ()).unwrap_err();
    assert!(matches!(error, ManifestError::NotAFile(_)), "{error}");
    // A sparse file needs no space, but this one has more blocks than a manifest can hold.
    fs::File::create(&path).unwrap().set_len(2 << 40).unwrap();
    assert!(matches!(of(DEFAULT_PIECE_SIZE), ManifestError::TooLong(_)));
}

#[test]
fn parse_refuses_contradictory_manifests() {
    let directory = tempfile::tempdir().unwrap();
    let original = manifest(&Model::layered("m", "t").save(directory.path(), "m.gguf"));
    let json = String::from_utf8(original.to_json()).unwrap();
    let size = original.size().to_string();
    let first = format!("[{},", original.pieces()[0].blocks[0].length);
    for (from, to, message) in [
        (r#""version":1"#, r#""version":2"#, "format is 2"),
        (r#""name":"m-Q4_K_M""#, r#""name":"../m""#, "not a safe name"),
        (r#""name":"m-Q4_K_M""#, r#""name":".m""#, "not a safe name"),
        (&size, "5", "a file of 5 bytes, but"),
        (&size, "0", "a file of 0 bytes, but"),
        (&size, "99999999999999999", "at most 17592186044416 are possible"),
        (r#""largest_piece":2097152"#, r#""largest_piece":1048576"#, "at most 1048576 are possible"),
        (r#""largest_piece":2097152"#, r#""largest_piece":1"#, "largest piece may be 4096 to"),
        (&first, "[0,", "a block of 0 bytes"),
        (&first, "[1048577,", "a block of 1048577 bytes"),
        (&first, "[4294967296,", "not a manifest"),
        (r#""architecture":"llama""#, r#""architecture":"\u0007""#, "control characters"),
        (r#""pieces":[{"#, r#""pieces":[{"sha256":"00","blocks":[]},{"#, "not a manifest"),
        (r#""facts":"#, r#""fact":"#, "not a manifest"),
        (r#""name":"m-Q4_K_M""#, r#""name":"m","name":"n""#, "not a manifest"),
    ] {
        let wrong = json.replacen(from, to, 1);
        assert_ne!(wrong, json, "{from}");
        let error = Manifest::parse(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(message) && error.len() < 500, "{to}: {error}");
    }
    let empty = format!(r#""pieces":[{{"sha256":"{}","blocks":[]}},{{"#, original.root());
    let error = Manifest::parse(json.replacen(r#""pieces":[{"#, &empty, 1).as_bytes()).unwrap_err();
    assert!(error.to_string().contains("piece 0 is empty"), "{error}");
    let digest = original.pieces()[0].digest.to_string();
    let error = Manifest::parse(json.replacen(&digest, &original.root().to_string(), 1).as_bytes());
    assert!(error.unwrap_err().to_string().contains("piece 0 is one block, but has another digest"));
    let error = Manifest::parse(&vec![b' '; (64 << 20) + 1]).unwrap_err();
    assert!(matches!(error, ManifestError::TooLong(_)), "{error}");
}

/// Any damage except in the name changes the root.
#[test]
fn damaged_manifest_is_refused_or_has_another_root() {
    let directory = tempfile::tempdir().unwrap();
    let original = manifest(&Model::layered("m", "t").save(directory.path(), "m.gguf"));
    let json = original.to_json();
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..5000 {
        let mut wrong = json.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..wrong.len());
            match random.u8(..3) {
                0 => wrong.truncate(at.max(1)),
                1 => wrong[at] = b"0123456789abcdef\",[]{}-."[random.usize(..24)],
                _ => wrong[at] ^= 1 << random.u8(..8),
            }
        }
        if let Ok(parsed) = Manifest::parse(&wrong) {
            let same = parsed.to_json() == json || parsed.name() != original.name();
            assert_eq!(parsed.root() == original.root(), same);
        }
    }
}

#[test]
fn sidecar_is_valid_until_its_file_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = Model::layered("m", "t").save(directory.path(), "m.gguf");
    assert_eq!(Manifest::read_sidecar(&path), None);
    let original = hash_with_sidecar(&path);
    assert_eq!(Manifest::read_sidecar(&path).as_ref(), Some(&*original));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);

    // Another file of the same size and modification time, as `rsync -t --inplace` leaves it.
    let (bytes, modified) = (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap());
    wait_for_clock_tick(&path);
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut &file, &random_bytes(9, bytes.len())).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(Manifest::read_sidecar(&path), None);
    assert_eq!(Manifest::read_outdated_sidecar(&path).as_ref(), Some(&*original));
    let open = || Store::open_verified(&path, Arc::clone(&original), &|_| ());
    assert!(open().is_err(), "the file was hashed again");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open().unwrap().have_bytes(), original.size());
    assert_eq!(Manifest::read_sidecar(&path).as_ref(), Some(&*original), "the sidecar is new");
    file.set_len(100).unwrap();
    assert_eq!(Manifest::read_sidecar(&path), None);
}

/// A wrong clock, or a file system with local times.
#[test]
fn file_with_a_future_date_is_hashed_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = Model::layered("m", "t").save(directory.path(), "m.gguf");
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(300_000_000)).unwrap();
    let original = hash_with_sidecar(&path);
    assert_eq!(Manifest::read_sidecar(&path).as_ref(), Some(&*original));
}

/// A copy of a folder has the sidecars of the original files.
#[test]
fn copied_file_is_hashed_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = Model::layered("m", "t").save(directory.path(), "m.gguf");
    let original = hash_with_sidecar(&path);
    let copy = directory.path().join("copy.gguf");
    fs::copy(&path, &copy).unwrap();
    fs::copy(directory.path().join("m.gguf.manifest"), directory.path().join("copy.gguf.manifest")).unwrap();
    assert_eq!(Manifest::read_sidecar(&copy), None);
    let hashed = AtomicU64::new(0);
    for _ in 0..2 {
        let progress = |bytes| {
            hashed.fetch_add(bytes, Ordering::Relaxed);
        };
        Store::open_verified(&copy, Arc::clone(&original), &progress).unwrap();
    }
    assert_eq!(hashed.into_inner(), original.size());
}

/// Names and sizes that a malicious seeder could choose.
#[test]
fn parse_refuses_malicious_values() {
    let directory = tempfile::tempdir().unwrap();
    let original = manifest(&Model::layered("m", "t").save(directory.path(), "m.gguf"));
    let json = String::from_utf8(original.to_json()).unwrap();
    let long = "x".repeat(300);
    let names =
        ["../../x", "a/b", "a\\\\b", "NUL", "com1.gguf", &long, "a\\u202eb", "x.gguf\\u0000", "..", "", " a"];
    for name in names {
        let wrong = json.replacen(r#""name":"m-Q4_K_M""#, &format!(r#""name":"{name}""#), 1);
        let error = Manifest::parse(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("not a safe name") && error.len() < 400, "{name}: {error}");
    }
    let size = format!(r#""size":{}"#, original.size());
    for wrong_size in ["9223372036854775808", "18446744073709551615", "18446744073709551616", "-1", "1e3"] {
        let wrong = json.replacen(&size, &format!(r#""size":{wrong_size}"#), 1);
        assert!(Manifest::parse(wrong.as_bytes()).is_err(), "{wrong_size}");
    }
    let fact = format!(r#""architecture":"{}""#, "x".repeat(257));
    let wrong = json.replacen(r#""architecture":"llama""#, &fact, 1);
    assert!(Manifest::parse(wrong.as_bytes()).is_err());
    for open in ["[", r#"{"version":"#, r#"{"version":1,"pieces":["#] {
        assert!(Manifest::parse(open.repeat(100_000).as_bytes()).is_err());
    }
}

#[test]
fn two_quantizations_have_two_names() {
    let directory = tempfile::tempdir().unwrap();
    let named = |file_type: u32| {
        let model = Model::default()
            .text("general.name", "Tiny Test")
            .number("general.file_type", file_type)
            .tensor("output.weight", random_bytes(3, 700));
        manifest(&model.save(directory.path(), "m.gguf"))
    };
    assert_eq!(named(2).name(), "Tiny-Test-Q4_0");
    assert_eq!(named(7).name(), "Tiny-Test-Q8_0");
    assert_eq!(named(7).model_name().unwrap(), "Tiny Test-Q8_0");
}

/// llama.cpp finds the parts of a split model by the ends of their names.
#[test]
fn part_of_a_split_model_keeps_the_end_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let part = Model::new("Big Model")
        .pair("split.no", 2, &1_u16.to_le_bytes())
        .pair("split.count", 2, &3_u16.to_le_bytes())
        .tensor("output.weight", random_bytes(3, 700));
    let build = |file: &str, name| {
        Manifest::build(&part.save(directory.path(), file), DEFAULT_PIECE_SIZE, name, &|_| ())
    };
    assert_eq!(build("big-00002-of-00003.gguf", None).unwrap().name(), "big-00002-of-00003");
    let named = build("big-00002-of-00003.gguf", Some("mine-00002-of-00003")).unwrap();
    assert_eq!(named.name(), "mine-00002-of-00003");
    for (file, name) in
        [("big.gguf", None), ("big-00001-of-00003.gguf", None), ("big-00002-of-00003.gguf", Some("big"))]
    {
        let error = build(file, name).unwrap_err().to_string();
        assert!(error.contains("part 2 of 3") && error.contains("'-00002-of-00003'"), "{error}");
    }
}
