//! The first load of a file in a child process.

use tightwad_engine::{Quantization, Weights};

use crate::support::{content, enable_trials, folder, load_error, model};

/// Not a test: the child process that `support::enable_trials` starts.
#[test]
fn child() {
    if let Some(request) = std::env::args().next_back().filter(|argument| argument.starts_with('{')) {
        let _ = tightwad_engine::try_model(&request);
    }
}

#[test]
fn llama_cpp_names_its_reason() {
    let path = folder("reasons").join("model.gguf");
    let mut foreign = content();
    foreign.set_text("general.architecture", "foreign");
    foreign.write(&path).unwrap();
    let message = load_error(&path);
    assert_eq!(message, "llama.cpp cannot load FILE: unknown model architecture: 'foreign'");
    let mut reshaped = content();
    reshaped.edit_tensor("blk.2.attn_k.weight", |sizes, _| sizes.swap(0, 1));
    reshaped.write(&path).unwrap();
    let message = load_error(&path);
    assert!(message.contains("tensor 'blk.2.attn_k.weight' has wrong shape"), "{message}");
    let mut unknown = content();
    unknown.set_text("tokenizer.ggml.pre", "no-such-pre-tokenizer");
    unknown.write(&path).unwrap();
    let message = load_error(&path);
    assert!(message.contains("unknown pre-tokenizer type: 'no-such-pre-tokenizer'"), "{message}");
}

#[test]
fn crash_of_llama_cpp_becomes_one_sentence() {
    let path = folder("crash").join("model.gguf");
    let mut model = content();
    model.set_number("llama.block_count", 0);
    model.write(&path).unwrap();
    let message = load_error(&path);
    assert!(message.starts_with("llama.cpp cannot load FILE: it stopped itself (GGML_ASSERT("), "{message}");
    assert!(message.ends_with(" failed)"), "{message}");
}

#[test]
fn structure_is_tried_without_weights() {
    enable_trials();
    let folder = folder("structure");
    let (path, output) = (folder.join("model.gguf"), folder.join("small.gguf"));
    tightwad_engine::quantize(&model(), &output, Quantization::Q8).unwrap();
    assert!(Weights::load(&output, 0).is_ok());
    let mut reshaped = content();
    reshaped.edit_tensor("blk.2.attn_k.weight", |sizes, _| sizes.swap(0, 1));
    reshaped.write(&path).unwrap();
    let error = tightwad_engine::quantize(&path, &output, Quantization::Q8).unwrap_err().to_string();
    assert!(error.contains("tensor 'blk.2.attn_k.weight' has wrong shape"), "{error}");
}
