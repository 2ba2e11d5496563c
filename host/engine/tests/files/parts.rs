//! Split models.

use std::fs;
use std::path::PathBuf;

use tightwad_engine::Weights;
use tightwad_engine::pool::ModelShape;

use crate::support::{content, enable_trials, folder, load_error, model};

fn parts(test: &str) -> Vec<PathBuf> {
    content().write_parts(&folder(test), "model", 3).unwrap()
}

#[test]
fn first_part_loads_the_complete_model() {
    enable_trials();
    let parts = parts("complete");
    let (split, whole) = (Weights::load(&parts[0], 0).unwrap(), Weights::load(&model(), 0).unwrap());
    assert_eq!(split.vocabulary_digest(), whole.vocabulary_digest());
    assert_eq!(split.size_bytes(), whole.size_bytes());
    let (split, whole) = (ModelShape::read(&parts[0]).unwrap(), ModelShape::read(&model()).unwrap());
    assert_eq!(split, whole, "all parts count");
}

#[test]
fn other_part_names_the_first_one() {
    let parts = parts("second");
    let message = load_error(&parts[1]);
    let first = parts[0].display();
    assert_eq!(
        message,
        format!("FILE belongs to a split model: it is part 2 of 3. Load the first part, {first}")
    );
}

#[test]
fn missing_part_is_named() {
    let parts = parts("missing");
    fs::remove_file(&parts[2]).unwrap();
    let message = load_error(&parts[0]);
    assert!(message.contains(&format!("the part {} is missing", parts[2].display())), "{message}");
}

#[test]
fn incomplete_part_is_named() {
    let parts = parts("incomplete");
    let bytes = fs::metadata(&parts[1]).unwrap().len() - 100;
    fs::File::options().write(true).open(&parts[1]).unwrap().set_len(bytes).unwrap();
    let error = Weights::load(&parts[0], 0).map(drop).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{} is incomplete: it has {bytes} of ", parts[1].display())),
        "{error}"
    );
}

#[test]
fn joined_renamed_and_mixed_parts_are_told_apart() {
    let parts = parts("joined");
    let joined = parts[0].with_file_name("joined.gguf");
    let bytes: Vec<u8> = parts.iter().flat_map(|part| fs::read(part).unwrap()).collect();
    fs::write(&joined, bytes).unwrap();
    // A joined file still says that it is the first part.
    let message = load_error(&joined);
    assert!(message.contains("several parts were joined byte by byte"), "{message}");
    let renamed = parts[0].with_file_name("renamed.gguf");
    fs::copy(&parts[0], &renamed).unwrap();
    let message = load_error(&renamed);
    assert!(message.contains("its name must end with -00001-of-00003.gguf"), "{message}");
    fs::copy(&parts[2], &parts[1]).unwrap();
    let error = Weights::load(&parts[0], 0).map(drop).unwrap_err().to_string();
    assert!(error.contains("its header does not say that it is part 2"), "{error}");
}
