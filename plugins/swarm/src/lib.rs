//! The swarm policy: what a pull fetches next, and from which peer.
//!
//! It is BitTorrent's (B. Cohen, "Incentives Build Robustness in BitTorrent", 2003) without choking, as
//! everybody here is a friend: rarest first, so that a seeder that leaves early leaves every piece behind
//! (A. Legout, G. Urvoy-Keller, P. Michiardi, "Rarest First and Choke Algorithms Are Enough", IMC 2006,
//! arXiv:cs/0609026); what was begun is finished first, as only whole pieces can be shared; the last pieces
//! are fetched twice, so that a pull does not end with a slow peer. A pull's first piece is no random one, as
//! it is there: all peers are asked at once here, and in the simulation it gained nothing.
//!
//! `pieces` knows what is missing and how rare it is, `peer` what one peer has and is worth, `flights` what is
//! being fetched; `policy` picks, `turns` says which peer picks first, `end_game` what is fetched twice.

pub mod chance;
pub mod end_game;
pub mod flights;
pub mod peer;
pub mod pieces;
pub mod policy;
pub mod rate;
pub mod set;
pub mod settings;
pub mod turns;

use tightwad_plugin_sdk::piece_picker::{Event, Fetch, Slot, Task};
use tightwad_plugin_sdk::{Duration, PiecePicker, export_piece_picker};

pub use policy::Policy;

struct RarestFirst(Policy);

impl PiecePicker for RarestFirst {
    const NAME: &'static str = "swarm";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn start(task: Task) -> Self {
        Self(Policy::new(&task))
    }

    fn pick(&mut self, now: Duration, events: Vec<Event>, slots: &[Slot]) -> Vec<Fetch> {
        for event in &events {
            self.0.observe(now, event);
        }
        self.0.pick(now, slots)
    }
}

export_piece_picker!(RarestFirst);
