//! What a request is and what answers it: plain data that every other folder speaks.

mod clock;
mod context;
mod event;
pub mod node;
pub mod pool;
mod request;
pub mod worker;

use std::path::PathBuf;

pub use clock::Clock;
pub use context::context_length;
pub use event::{Event, Finish, GateReport, Outcome, Report, TextLogprobs, Usage};
pub use node::{Load, ModelFacts};
pub use request::{Format, Message, Prompt, Request, Tool, ToolChoice};

/// Bytes as people compare them.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64 hexadecimal digits as the digest they show; `None` for anything else.
#[must_use]
pub fn digest(text: &str) -> Option<[u8; 32]> {
    let byte = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..32).map(byte).collect();
    bytes.filter(|_| text.len() == 64)?.try_into().ok()
}

/// The user's folder for what can be made again; `None` for users without a home.
#[must_use]
pub fn user_cache() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// The user's folder for what is kept; `None` for users without a home.
#[must_use]
pub fn user_data() -> Option<PathBuf> {
    user_folder("XDG_DATA_HOME", ".local/share")
}

/// Ours in a base directory of the XDG specification.
fn user_folder(variable: &str, usual: &str) -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(usual));
    let base = std::env::var_os(variable).map(PathBuf::from).or_else(home)?;
    base.is_absolute().then(|| base.join("tightwad"))
}
