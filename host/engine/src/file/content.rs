//! What a model file contains: only complete models that generate text can be served.

use tightwad_gguf::{ElementType, Header};

use crate::error::LoadError;
use crate::file::model_file::ModelFile;

/// Architectures of llama.cpp 0.6.0 that do not generate text token by token, and the reason. `src/llama-arch.cpp` has
/// the names.
const OTHER_ARCHITECTURES: [(&[&str], &str); 6] = [
    (
        &[
            "bert",
            "modern-bert",
            "nomic-bert",
            "nomic-bert-moe",
            "neo-bert",
            "jina-bert-v2",
            "jina-bert-v3",
            "eurobert",
            "gemma-embedding",
            "llama-embed",
            "t5encoder",
        ],
        "it is an embedding model, which embeds only",
    ),
    (&["t5"], "it is an encoder-decoder model, which is not supported. Use a decoder-only model"),
    (&["dream", "llada", "llada-moe", "rnd1"], "it is a diffusion model, which is not supported"),
    (
        &["clip"],
        "it is the image or audio part of a multimodal model (mmproj). Load the language model beside it",
    ),
    (&["wavtokenizer-dec"], "it decodes audio"),
    (
        &["eagle3", "dflash", "gemma4-assistant"],
        "it is a draft head, which needs the state of its target and is not supported. Use a complete model as drafter",
    ),
];

/// Values of `general.type` other than `model`.
const OTHER_TYPES: [(&str, &str); 3] = [
    ("adapter", "it is an adapter (LoRA), which is not supported. Load the model that it adapts"),
    ("mmproj", OTHER_ARCHITECTURES[3].1),
    ("imatrix", "it is an importance matrix for quantization, not a model"),
];

/// Checks that `file` contains a usable vocabulary.
///
/// # Errors
///
/// [`LoadError::Unsupported`] or [`LoadError::Malformed`] with the reason.
pub(crate) fn check_vocabulary(file: &ModelFile) -> Result<(), LoadError> {
    if let Some(reason) = other_kind(file.header()) {
        return Err(LoadError::Unsupported { path: file.path().to_owned(), reason });
    }
    match vocabulary_defect(file.header()) {
        Some(reason) => Err(LoadError::Malformed { path: file.path().to_owned(), reason }),
        None => Ok(()),
    }
}

/// Checks that `file` contains a complete model that generates text.
///
/// # Errors
///
/// As [`check_vocabulary`].
pub(crate) fn check_model(file: &ModelFile) -> Result<(), LoadError> {
    check_vocabulary(file)?;
    if file.tensors().next().is_none() {
        let reason = "it contains a vocabulary and no weights".to_owned();
        return Err(LoadError::Unsupported { path: file.path().to_owned(), reason });
    }
    Ok(())
}

/// What the file is, if it is not a model that generates text.
fn other_kind(header: &Header) -> Option<String> {
    let file_type = header.text("general.type").unwrap_or("model");
    if let Some((_, reason)) = OTHER_TYPES.iter().find(|(other, _)| *other == file_type) {
        return Some((*reason).to_owned());
    }
    let architecture = header.text("general.architecture").unwrap_or_default();
    if architecture.starts_with("controlvector") {
        return Some("it is a control vector, which is not supported".to_owned());
    }
    let other = OTHER_ARCHITECTURES.iter().find(|(names, _)| names.contains(&architecture));
    if let Some((_, reason)) = other {
        return Some(format!("{reason} ({architecture})"));
    }
    match header.number(&format!("{architecture}.pooling_type")) {
        Some(4) => {
            Some(format!("it is a reranking model, which scores pairs of texts only ({architecture})"))
        }
        Some(1..=3) => Some(format!("{} ({architecture})", OTHER_ARCHITECTURES[0].1)),
        _ => None,
    }
}

/// A defect of the vocabulary. llama.cpp reads some of these arrays without a check.
fn vocabulary_defect(header: &Header) -> Option<String> {
    if header.text("general.architecture").is_none_or(str::is_empty) {
        return Some("its header has no general.architecture".to_owned());
    }
    let tokenizer = header.text("tokenizer.ggml.model").unwrap_or_default();
    let tokens = header.array("tokenizer.ggml.tokens").filter(|tokens| tokens.element == ElementType::Text);
    let count = match tokens {
        Some(tokens) if tokens.count > 0 && !matches!(tokenizer, "" | "none" | "no_vocab") => tokens.count,
        _ => return Some("it contains no tokenizer".to_owned()),
    };
    let lists: [(&str, &[ElementType]); 2] = [
        ("tokenizer.ggml.scores", &[ElementType::Float32, ElementType::Int32]),
        ("tokenizer.ggml.token_type", &[ElementType::Int32]),
    ];
    for (key, elements) in lists {
        match header.value(key).map(|_| header.array(key)) {
            None => {}
            Some(Some(array)) if array.count == count && elements.contains(&array.element) => {}
            Some(Some(array)) if array.count != count => {
                return Some(format!("{key} has {} entries for {count} tokens", array.count));
            }
            Some(_) => return Some(format!("{key} has a wrong type")),
        }
    }
    let merges = header.value("tokenizer.ggml.merges").map(|_| header.array("tokenizer.ggml.merges"));
    let merges_are_texts = merges.is_none_or(|merges| merges.is_some_and(|m| m.element == ElementType::Text));
    (!merges_are_texts).then(|| "tokenizer.ggml.merges has a wrong type".to_owned())
}
