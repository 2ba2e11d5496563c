//! A panic hook that writes the message to the host's log. Without it, the trap loses the message.

use std::sync::Once;

use crate::bindings::mode::tightwad::plugin::log::{Level, write};

/// Installs the hook. Later calls do nothing.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| write(Level::Error, &info.to_string())));
    });
}
