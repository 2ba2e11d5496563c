//! What is fetched twice when nothing else is left: the piece that is expected to come last, from a peer that is
//! expected to help. The fetches of a piece share what is missing of it, so little comes twice.

use std::collections::BTreeMap;

use crate::flights::Flights;
use crate::peer::Peer;
use crate::pieces::{Need, Pieces};

const SECOND: f64 = 1e9;
/// What comes within this time, in seconds, comes before a second fetch is of use.
const SOON: f64 = 0.02;
/// A second fetch helps when it is at least this share as fast as what is under way.
const HELP: f64 = 0.25;
/// A fetch that takes longer than expected takes this share of its time more.
const LATE: f64 = 0.125;

/// When a piece is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Outlook {
    piece: u32,
    /// In so many seconds.
    left: f64,
    /// Bytes a second; `None`: nothing is known of any peer.
    rate: Option<f64>,
    /// How many fetches it has.
    fetches: u32,
}

/// The pieces that may be fetched twice, in one call of the policy: what comes last first.
#[derive(Debug, Clone, Default)]
pub struct EndGame {
    outlooks: Vec<Outlook>,
    usual: Option<f64>,
    most: u32,
}

impl EndGame {
    /// What is under way of a need, with at most `most` fetches of a piece; nothing while there is something else to
    /// be fetched.
    #[must_use]
    pub fn of(
        (now, most, usual): (u64, u32, Option<f64>),
        need: Need,
        pieces: &Pieces,
        peers: &BTreeMap<u32, Peer>,
        flights: &Flights,
    ) -> Self {
        let mut outlooks = Vec::new();
        if let Some(flying) = pieces.all_flying(need).filter(|_| most > 1) {
            for piece in flying.iter() {
                let outlook = outlook(now, usual, (piece, pieces.missing_of(piece)), peers, flights);
                if outlook.fetches < most {
                    outlooks.push(outlook);
                }
            }
        }
        outlooks.sort_by(|a, b| b.left.total_cmp(&a.left));
        Self { outlooks, usual, most }
    }

    /// What `number` fetches besides others; it is counted as under way.
    pub fn second(&mut self, number: u32, peer: &Peer, flights: &Flights) -> Option<u32> {
        let expected = peer.expected(self.usual);
        let at = self.outlooks.iter().position(|one| {
            peer.offers.has(one.piece) && one.is_helped_by(expected) && !flights.has(one.piece, number)
        })?;
        let one = self.outlooks.get_mut(at)?;
        let piece = one.piece;
        one.fetches += 1;
        if let (Some(rate), Some(more)) = (&mut one.rate, expected) {
            one.left *= *rate / (*rate + more);
            *rate += more;
        }
        if one.fetches >= self.most {
            self.outlooks.remove(at);
        }
        Some(piece)
    }
}

impl Outlook {
    fn is_helped_by(&self, more: Option<f64>) -> bool {
        match (more, self.rate) {
            (Some(more), Some(rate)) => self.left > SOON && more >= HELP * rate,
            // Where nothing is known, one is as good as the other.
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }
}

fn outlook(
    now: u64,
    usual: Option<f64>,
    (piece, missing): (u32, u64),
    peers: &BTreeMap<u32, Peer>,
    flights: &Flights,
) -> Outlook {
    let missing = missing.max(1) as f64;
    let (mut longest, mut rates, mut came, mut fetches) = (0.0_f64, 0.0, 0.0, 0);
    for (from, flight) in flights.of(piece) {
        let time = now.saturating_sub(flight.began) as f64 / SECOND;
        let rate = peers.get(&from).and_then(|peer| peer.expected_each(usual)).unwrap_or(0.0);
        longest = longest.max(time);
        rates += rate;
        came += rate * time;
        fetches += 1;
    }
    if rates <= 0.0 {
        return Outlook { piece, left: longest, rate: None, fetches };
    }
    // It may come slower than its peers promise.
    let left = ((missing - came) / rates).max(LATE * longest);
    Outlook { piece, left, rate: Some(rates.min(missing / longest.max(SOON))), fetches }
}
