//! Parses and formats sizes such as `512M`.

use std::fmt;
use std::str::FromStr;

/// The text is not a size below 10¹⁸ bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a size such as 512M or 6G")]
pub struct InvalidSize(pub String);

/// A number of bytes. `6G` is six times 1024³.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, InvalidSize> {
        let invalid = || InvalidSize(text.to_owned());
        let trimmed = text.trim().trim_end_matches(['B', 'b', 'i']);
        let unit = UNITS.iter().find(|(name, _)| trimmed.to_ascii_uppercase().ends_with(*name));
        let digits = unit.map_or(trimmed, |_| &trimmed[..trimmed.len() - 1]);
        let number: f64 = digits.trim().parse().map_err(|_| invalid())?;
        let bytes = number * f64::from(unit.map_or(0, |(_, bits)| *bits)).exp2();
        if bytes.is_finite() && (0.0..1e18).contains(&bytes) {
            Ok(Self(bytes as u64))
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, bits)| self.0 >> bits > 0) {
            Some((unit, bits)) => {
                let number = self.0 as f64 / f64::from(*bits).exp2();
                write!(f, "{number:.1} {unit}iB")
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_parses_and_formats() {
        for (text, bytes) in [("6G", 6 << 30), ("512MiB", 512 << 20), ("1.5k", 1536), ("7", 7), ("0", 0)] {
            assert_eq!(text.parse::<Size>(), Ok(Size(bytes)), "{text}");
        }
        for invalid in ["", "G", "-1G", "six", "1e30T"] {
            assert!(invalid.parse::<Size>().is_err(), "{invalid}");
        }
        assert_eq!(Size(6 << 30).to_string(), "6.0 GiB");
        assert_eq!(Size(12).to_string(), "12 B");
    }
}
