//! Panics reach the host's log; without this their message is lost with the trap.

use std::sync::Once;

use crate::bindings::tightwad::plugin::log::{Level, write};

/// Installs the hook, once.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| write(Level::Error, &info.to_string())));
    });
}
