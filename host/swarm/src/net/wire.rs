//! The JSON messages between seeders and pulls.

use serde::{Deserialize, Serialize};

use crate::disk::digest::Digest;

/// An entry of `GET /v1/swarm`: a model that a seeder has, completely or in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelListing {
    /// The manifest's root, which identifies the model.
    pub root: Digest,
    /// Its name.
    pub name: String,
    /// Bytes of the complete file.
    pub size: u64,
    /// Pieces of the complete file.
    pub pieces: u32,
    /// The number of pieces that the seeder has.
    pub have_pieces: u32,
}

/// The answer to `GET /v1/swarm/{root}/have`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The version of this state. A different number means a change.
    pub version: u64,
    /// Runs of pieces that the seeder has: the first piece, and the one after the last.
    pub pieces: Vec<(u32, u32)>,
    /// Whether the seeder has all pieces.
    pub complete: bool,
    /// Runs of pieces that the seeder itself fetches. Other machines count them as copies, and so need not
    /// fetch them from their only owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_progress: Vec<(u32, u32)>,
    /// The seeder's random id. A machine that pulls and seeds recognizes its own seeder by it.
    pub seeder: String,
}

/// The body of `POST /v1/swarm/{root}/peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    /// The port at which the sender seeds this model. The address is the sender's own, so that a sender
    /// cannot direct requests at other machines.
    #[serde(default)]
    pub port: Option<u16>,
    /// Whether that seeder is encrypted.
    #[serde(default)]
    pub encrypted: bool,
}

/// The answer to `POST /v1/swarm/{root}/peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerList {
    /// Addresses of other seeders of the model.
    pub peers: Vec<String>,
}

/// Turns ascending `pieces` into runs.
pub(crate) fn piece_runs(pieces: &[u32]) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &piece in pieces {
        match runs.last_mut() {
            Some((_, end)) if *end == piece => *end += 1,
            _ => runs.push((piece, piece + 1)),
        }
    }
    runs
}

/// Whether `runs` are ascending, disjoint runs within `pieces` pieces. Their number is then bounded too.
pub(crate) fn are_runs_of(runs: &[(u32, u32)], pieces: u32) -> bool {
    let mut end_before = 0;
    runs.iter().all(|&(from, to)| {
        let follows = end_before <= from && from < to && to <= pieces;
        end_before = to;
        follows
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_must_be_ascending_and_disjoint() {
        for valid in [&[][..], &[(0, 9)], &[(0, 1), (1, 2), (8, 9)]] {
            assert!(are_runs_of(valid, 9), "{valid:?}");
        }
        for invalid in [
            &[(0, 10)][..],
            &[(3, 3)],
            &[(7, 3)],
            &[(0, 2), (1, 3)],
            &[(4, 5), (0, 1)],
            &[(0, 9), (0, 9)],
            &[(u32::MAX, u32::MAX)],
        ] {
            assert!(!are_runs_of(invalid, 9), "{invalid:?}");
        }
    }

    #[test]
    fn piece_runs_join_neighbours() {
        assert_eq!(piece_runs(&[]), []);
        assert_eq!(piece_runs(&[0, 1, 2, 5, 7, 8]), [(0, 3), (5, 6), (7, 9)]);
    }
}
