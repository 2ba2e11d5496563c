//! Files that are not models, and models that do not generate text: one true message for each kind.

use std::fs;
use std::io::Write;
use std::path::Path;

use tightwad_engine::{Engine, EngineConfig, LoadError, Weights};
use tightwad_zoo::GgufFile;

use crate::support::{folder, load_error, model, vocabulary};

/// An edit of a model without weights, and the message.
type Case = (fn(&mut GgufFile), &'static str);

/// Writes each edited file to `path`, and checks the message of its load.
fn check_refusals(path: &Path, cases: &[Case], after: impl Fn(&str)) {
    for (edit, expected) in cases {
        let mut file = vocabulary();
        edit(&mut file);
        file.write(path).unwrap();
        let message = load_error(path);
        assert!(message.contains(expected), "{message}");
        after(expected);
    }
}

#[test]
fn each_kind_of_file_that_generates_no_text_has_its_own_message() {
    let cases: [Case; 16] = [
        (|_| (), "FILE cannot generate text: it contains a vocabulary and no weights"),
        (|file| file.set_text("general.type", "adapter"), "it is an adapter (LoRA)"),
        (|file| file.set_text("general.type", "mmproj"), "(mmproj). Load the language model beside it"),
        (|file| file.set_text("general.type", "imatrix"), "it is an importance matrix"),
        (|file| file.set_text("general.architecture", "clip"), "(mmproj). Load the language model beside it"),
        (|file| file.set_text("general.architecture", "t5"), "it is an encoder-decoder model"),
        (|file| file.set_text("general.architecture", "t5encoder"), "embeds only (t5encoder)"),
        (|file| file.set_text("general.architecture", "bert"), "embeds only (bert)"),
        (|file| file.set_text("general.architecture", "nomic-bert"), "embeds only (nomic-bert)"),
        (|file| file.set_number("qwen3moe.pooling_type", 3), "embeds only (qwen3moe)"),
        (|file| file.set_number("qwen3moe.pooling_type", 4), "it is a reranking model"),
        (|file| file.set_text("general.architecture", "llada"), "it is a diffusion model"),
        (|file| file.set_text("general.architecture", "eagle3"), "it is a draft head"),
        (|file| file.remove("general.architecture"), "its header has no general.architecture"),
        (|file| file.remove("tokenizer."), "FILE has a defect: it contains no tokenizer"),
        (|file| file.set_text("tokenizer.ggml.model", "no_vocab"), "it contains no tokenizer"),
    ];
    let path = folder("kinds").join("model.gguf");
    check_refusals(&path, &cases, |_| ());
}

#[test]
fn vocabulary_lists_of_wrong_length_or_type_are_refused_before_llama_cpp_reads_them() {
    let cases: [Case; 4] = [
        (
            |file| file.set_numbers("tokenizer.ggml.token_type", &[1; 7]),
            "tokenizer.ggml.token_type has 7 entries for 4096 tokens",
        ),
        (|file| file.set_numbers("tokenizer.ggml.scores", &[]), "scores has 0 entries for 4096 tokens"),
        (
            |file| file.set_text("tokenizer.ggml.token_type", "x"),
            "tokenizer.ggml.token_type has a wrong type",
        ),
        (|file| file.set_number("tokenizer.ggml.merges", 1), "tokenizer.ggml.merges has a wrong type"),
    ];
    let path = folder("lists").join("model.gguf");
    check_refusals(&path, &cases, |expected| assert!(Weights::load_vocabulary(&path).is_err(), "{expected}"));
}

#[test]
fn incomplete_file_names_its_length_at_every_cut() {
    let whole = fs::read(model()).unwrap();
    let path = folder("cut").join("model.gguf");
    fs::write(&path, &whole).unwrap();
    let mut length = whole.len() - 33;
    let mut known_lengths = 0;
    while length > 0 {
        fs::File::options().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        let error = Weights::load(&path, 0).map(drop).unwrap_err();
        let LoadError::Incomplete { bytes, expected, .. } = &error else { panic!("{length}: {error}") };
        assert_eq!(*bytes, length as u64);
        known_lengths += usize::from(expected.is_some());
        assert!(expected.is_none_or(|expected| whole.len().abs_diff(expected as usize) < 32), "{error}");
        assert!(error.to_string().ends_with(". Continue its download"), "{error}");
        length = length * 2 / 3;
    }
    assert!(known_lengths > 3, "the header is complete at the first cuts");
}

#[test]
fn file_of_another_format_is_named() {
    let path = folder("formats").join("model.gguf");
    for (content, expected) in [
        (&b""[..], "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
        (b"<!doctype html><title>404</title>", "it is a web page"),
        (b"PK\x03\x04..............................", "it is a zip archive"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{}}        ", "it has the format safetensors"),
        (b"tjgg............................", "it has an old format of llama.cpp"),
        (b"GGUF\x00\x00\x00\x03................................", "it is a GGUF for big-endian machines"),
        (b"GGUF\x01\x00\x00\x00................................", "this version of GGUF is not supported"),
        (b"plain text instead of a model", "it does not begin with GGUF"),
    ] {
        fs::write(&path, content).unwrap();
        let message = load_error(&path);
        assert!(message.starts_with("FILE is not a GGUF model: ") && message.contains(expected), "{message}");
    }
    let message = load_error(path.parent().unwrap());
    assert!(message.contains("it is not a file"), "{message}");
}

#[test]
fn bytes_behind_a_model_do_no_harm() {
    let path = folder("tail").join("model.gguf");
    fs::copy(model(), &path).unwrap();
    fs::File::options().append(true).open(&path).unwrap().write_all(&[1; 1000]).unwrap();
    let config = EngineConfig { context: 256, slots: 1, ..EngineConfig::default() };
    assert!(Engine::load(&path, config).is_ok());
}
