//! Facts about a model, from the header of its GGUF.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use tightwad_gguf::sanitize;

use crate::disk::digest::Digest;

/// Facts about a model, from the header of its GGUF. Other files have none.
///
/// The file type stays a number: later versions know more names, but every version must make the same
/// manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// `general.architecture`, such as `llama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `general.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `general.file_type`. [`Facts::quantization`] is its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<u32>,
    /// Tokens of context that the model was trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// The digest of the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<Digest>,
}

impl Facts {
    /// The usual name of the type that most tensors have, such as `Q4_K_M`.
    #[must_use]
    pub fn quantization(&self) -> Option<Cow<'static, str>> {
        let number = self.file_type?;
        // 1024 is the flag of a guessed type.
        let name = FILE_TYPES.iter().find(|(value, _)| *value == number & !1024);
        Some(name.map_or_else(|| Cow::Owned(format!("type {number}")), |(_, name)| Cow::Borrowed(*name)))
    }

    /// The model's name with its quantization, so that two quantizations of a model have two names. `None`
    /// when the header has no name.
    pub(crate) fn model_name(&self) -> Option<String> {
        let name = self.name.as_deref().filter(|name| !name.trim().is_empty())?;
        match self.quantization() {
            Some(kind) if !name.to_ascii_lowercase().contains(&kind.to_ascii_lowercase()) => {
                Some(format!("{name}-{kind}"))
            }
            _ => Some(name.to_owned()),
        }
    }

    /// Whether [`sanitize`] would not change the texts.
    pub(crate) fn are_sanitized(&self) -> bool {
        [&self.architecture, &self.name].into_iter().flatten().all(|text| sanitize(text.as_bytes()) == *text)
    }
}

/// The names of `llama_ftype` in llama.cpp.
const FILE_TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantization_names_known_and_unknown_types() {
        let of = |file_type| Facts { file_type, ..Facts::default() }.quantization();
        assert_eq!(of(None), None);
        assert_eq!(of(Some(15)).unwrap(), "Q4_K_M");
        assert_eq!(of(Some(15 | 1024)).unwrap(), "Q4_K_M");
        assert_eq!(of(Some(4)).unwrap(), "type 4");
    }

    #[test]
    fn model_name_contains_the_quantization_once() {
        let of = |name: &str, file_type| {
            Facts { name: Some(name.to_owned()), file_type, ..Facts::default() }.model_name()
        };
        assert_eq!(of("Tiny", Some(15)).unwrap(), "Tiny-Q4_K_M");
        assert_eq!(of("tiny.q4_k_m", Some(15)).unwrap(), "tiny.q4_k_m");
        assert_eq!(of("Tiny", None).unwrap(), "Tiny");
        assert_eq!(of(" ", Some(15)), None);
        assert_eq!(Facts::default().model_name(), None);
    }
}
