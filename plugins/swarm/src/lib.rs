//! The piece picker: it chooses the next pieces of a pull, and their peers.
//!
//! It works as in BitTorrent (B. Cohen, "Incentives Build Robustness in BitTorrent", 2003), without choking: the
//! peers trust each other. Rarest first: a seeder that leaves early leaves every piece behind (A. Legout, G.
//! Urvoy-Keller, P. Michiardi, "Rarest First and Choke Algorithms Are Enough", IMC 2006, arXiv:cs/0609026). Partial
//! pieces come first: only complete pieces can be shared. The last pieces are fetched twice (endgame), so that a
//! slow peer does not delay the end of a pull. BitTorrent picks the first piece at random. This picker does not: it
//! asks all peers at once, and in the simulation a random first piece gained nothing.
//!
//! `pieces` keeps the missing pieces and their rarity, `peer` the state of a peer, `in_flight` the fetches. `picker`
//! picks, `peer_order` orders the peers, and `endgame` chooses second fetches.

pub mod bit_set;
pub mod endgame;
pub mod in_flight;
pub mod peer;
pub mod peer_order;
pub mod picker;
pub mod pieces;
pub mod rate;
pub mod rng;
pub mod settings;

use tightwad_plugin_sdk::piece_picker::{Event, Fetch, Slot, Task};
use tightwad_plugin_sdk::{Duration, PiecePicker, export_piece_picker};

pub use picker::Picker;

struct RarestFirst(Picker);

impl PiecePicker for RarestFirst {
    const NAME: &'static str = "swarm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn start(task: Task) -> Self {
        Self(Picker::new(&task))
    }

    fn pick(&mut self, now: Duration, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch> {
        for event in &events {
            self.0.observe(now, event);
        }
        self.0.pick(now, slots)
    }
}

export_piece_picker!(RarestFirst);
