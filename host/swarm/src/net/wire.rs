//! What seeders and pullers say to one another, as JSON.

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;

/// A model that a seeder has, whole or in part: one of `GET /v1/swarm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The manifest's root: what names the model for good.
    pub root: Digest,
    /// Its name.
    pub name: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// Pieces of the whole file.
    pub pieces: u32,
    /// How many of them are there.
    pub had: u32,
}

/// The answer to `GET /v1/swarm/{root}/have`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// Names this state; another number means that something changed.
    pub version: u64,
    /// Runs of pieces that are there: the first one, and the one after the last.
    pub pieces: Vec<(u32, u32)>,
    /// True when nothing is missing.
    pub whole: bool,
    /// Runs of pieces that are being fetched: others need not fetch them from those who alone have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coming: Vec<(u32, u32)>,
    /// The seeder's name, so that a machine knows itself.
    pub seeder: String,
}

/// The body of `POST /v1/swarm/{root}/peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// Where the asker seeds this model too; on its own address, so that nobody can be made to call others.
    #[serde(default)]
    pub port: Option<u16>,
}

/// The answer to `POST /v1/swarm/{root}/peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Addresses of other seeders of the model.
    pub peers: Vec<String>,
}

/// `pieces`, which grow, as runs.
pub(crate) fn runs(pieces: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &piece in pieces {
        match runs.last_mut() {
            Some((_, end)) if *end == piece => *end += 1,
            _ => runs.push((piece, piece + 1)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_neighbours_together() {
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 6), (7, 9)]);
    }
}
