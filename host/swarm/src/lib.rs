//! Distributes model files between machines: the mechanism only.
//!
//! A *manifest* identifies a file by the digest of its pieces' digests. A *store* holds that file on this
//! machine, completely or in part. A *seeder* serves stores over HTTP. A *pull* fills a store from many
//! peers. A [`Picker`] chooses the next pieces and their peers; this crate handles sockets, disks and hashes.
//!
//! `disk` does not depend on the network, and `net` does not depend on GGUF.

pub mod disk;
#[doc(hidden)]
pub mod fuzzing;
mod model_ref;
pub mod net;
mod picker;

pub use model_ref::{ModelRef, ModelRefError};
pub use picker::{Event, Fault, Fetch, FetchResult, PeerId, PickError, Picker, Slot, Task};
