//! What a GGUF says of itself.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;

/// Longest text of a fact, in bytes.
pub(crate) const TEXT: usize = 256;

/// What the header of a GGUF says; all absent for other files.
///
/// Numbers stay numbers here, because a manifest must be the same whatever version made it, and a later
/// one knows more names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// `general.architecture`, such as `llama`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// `general.name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `general.file_type`; [`Facts::quantization`] has it as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<u32>,
    /// Tokens of context that the model was trained for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u64>,
    /// Digest of the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<Digest>,
}

impl Facts {
    /// Most of the tensors' type, as people call it: `Q4_K_M`.
    #[must_use]
    pub fn quantization(&self) -> Option<Cow<'static, str>> {
        let number = self.file_type?;
        // The flag of a guessed type.
        let name = NAMES.iter().find(|(known, _)| *known == number & !1024);
        Some(name.map_or_else(|| Cow::Owned(format!("type {number}")), |(_, name)| Cow::Borrowed(*name)))
    }

    /// Whether the texts are as [`clean`] makes them.
    pub(crate) fn are_clean(&self) -> bool {
        [&self.architecture, &self.name].into_iter().flatten().all(|text| clean(text.as_bytes()) == *text)
    }
}

/// A text of a GGUF that may be shown on a terminal: bounded and without control characters.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(TEXT)];
    let mut text: String =
        String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    // What is not UTF-8 became longer.
    text.truncate(text.floor_char_boundary(TEXT));
    text
}

/// `llama_ftype` of llama.cpp.
const NAMES: &[(u32, &str)] = &[
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
    fn types_have_their_names() {
        let of = |file_type| Facts { file_type, ..Facts::default() }.quantization();
        assert_eq!(of(None), None);
        assert_eq!(of(Some(15)).unwrap(), "Q4_K_M");
        assert_eq!(of(Some(15 | 1024)).unwrap(), "Q4_K_M");
        assert_eq!(of(Some(4)).unwrap(), "type 4");
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        assert_eq!(clean(b"a\x1b[31m\nb"), "a [31m b");
        let twice = |bytes: &[u8]| clean(clean(bytes).as_bytes());
        for bytes in [&[0xff; 1000][..], &[0xc3, 0xa4].repeat(400), b"x"] {
            assert!(clean(bytes).len() <= TEXT);
            assert_eq!(clean(bytes), twice(bytes));
        }
    }
}
