//! Spreads model files from machine to machine: mechanism only.
//!
//! A *manifest* names a file by the digest of its pieces' digests. A *store* is that file on this
//! machine, whole or in part. A *seeder* serves stores over HTTP; a *puller* fills one from many peers.
//! What is fetched next, and from whom, is a [`Picker`]'s decision: sockets, disks and hashes are ours.
//!
//! `disk` knows nothing of the network, `net` nothing of GGUF.

pub mod disk;
pub mod net;
mod picker;
mod wanted;

pub use picker::{Event, Fault, Fetch, Fetched, PeerId, PickError, Picker, Slot, Task};
pub use wanted::{Wanted, WantedError};
