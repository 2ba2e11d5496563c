//! How far something is: a bar on a terminal, plain lines off one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tightwad_core::Size;
use tightwad_swarm::net::Progress;

/// Off a terminal, how often a line is printed.
const LINES: Duration = Duration::from_secs(5);

/// Shows one long thing.
pub(crate) struct Bar {
    bar: ProgressBar,
    what: String,
    last: Instant,
}

impl Bar {
    /// Shows `what`, of so many bytes.
    pub(crate) fn new(what: &str, bytes: u64) -> Self {
        let form = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        // The form is ours: should it be wrong, the usual one is shown.
        let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(bytes).with_style(style).with_message(what.to_owned());
        Self { bar, what: what.to_owned(), last: Instant::now() }
    }

    /// Shows how far a pull is.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let message = format!("{}, {} peers", self.what, progress.peers);
        self.bar.set_length(progress.bytes_wanted);
        self.bar.set_message(message.clone());
        self.bar.set_position(progress.bytes_had);
        if self.bar.is_hidden() && self.last.elapsed() >= LINES {
            self.last = Instant::now();
            let left =
                progress.bytes_wanted.saturating_sub(progress.bytes_had) as f64 / progress.rate.max(1.0);
            eprintln!(
                "{message}: {} of {}, {}/s, {left:.0} s left",
                Size(progress.bytes_had),
                Size(progress.bytes_wanted),
                Size(progress.rate as u64)
            );
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows how much of a file of so many bytes is hashed, as threads tell it.
pub(crate) fn hashing(what: &str, bytes: u64) -> impl Fn(u64) + Send + Sync + 'static {
    let bar = Bar::new(&format!("hashing {what}"), bytes);
    let done = AtomicU64::new(0);
    move |more| {
        bar.bar.set_position(done.fetch_add(more, Ordering::Relaxed) + more);
    }
}
