//! Progress of long operations: a bar on a terminal, log lines elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tightwad_core::Size;
use tightwad_modes::swarm::PulledModel;
use tightwad_swarm::net::Progress;
use tokio::sync::watch;

/// The time between two log lines.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// The progress of one operation.
pub(crate) struct Bar {
    bar: ProgressBar,
    label: String,
    last_line: Instant,
}

impl Bar {
    /// Creates a bar at 0 of `total_bytes`.
    pub(crate) fn new(label: &str, total_bytes: u64) -> Self {
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
        // The default style replaces an invalid template.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total_bytes).with_style(style).with_message(label.to_owned());
        Self { bar, label: label.to_owned(), last_line: Instant::now() }
    }

    /// Shows the progress of a pull.
    pub(crate) fn show(&mut self, progress: &Progress) {
        let message = format!("{}, {} peers", self.label, progress.peers);
        self.bar.set_length(progress.wanted_bytes);
        self.bar.set_message(message.clone());
        self.bar.set_position(progress.have_bytes);
        if self.bar.is_hidden() && self.last_line.elapsed() >= LOG_INTERVAL {
            self.last_line = Instant::now();
            let seconds_left = progress.wanted_bytes.saturating_sub(progress.have_bytes) as f64
                / progress.bytes_per_second.max(1.0);
            eprintln!(
                "{message}: {} of {}, {}/s, {seconds_left:.0} s left",
                Size(progress.have_bytes),
                Size(progress.wanted_bytes),
                Size(progress.bytes_per_second as u64)
            );
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Shows the progress of hashing a file of `total_bytes`. The returned function takes the number of further bytes.
pub(crate) fn hashing(file: &str, total_bytes: u64) -> impl Fn(u64) + Send + Sync + 'static {
    let bar = Bar::new(&format!("hashing {file}"), total_bytes);
    let hashed_bytes = AtomicU64::new(0);
    move |bytes| {
        bar.bar.set_position(hashed_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }
}

/// Runs a pull and shows its progress.
pub(crate) async fn with_progress<F: Future>(
    label: &str,
    as_json: bool,
    pull: impl FnOnce(watch::Sender<Progress>) -> F,
) -> F::Output {
    let (sender, mut progress) = watch::channel(Progress::default());
    let mut bar = Bar::new(label, 0);
    let mut pulling = std::pin::pin!(pull(sender));
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut sender_lives = true;
    loop {
        tokio::select! {
            result = &mut pulling => return result,
            change = progress.changed(), if sender_lives => {
                sender_lives = change.is_ok();
                if !as_json {
                    bar.show(&progress.borrow_and_update());
                }
            }
            _ = ticks.tick(), if as_json => {
                let current = progress.borrow().clone();
                println!(
                    "{}",
                    json!({"bytes": current.have_bytes, "total_bytes": current.wanted_bytes, "bytes_per_second": current.bytes_per_second as u64,
                           "peers": current.peers})
                );
            }
        }
    }
}

/// The summary of a pull, for people.
pub(crate) fn summary(pulled: &PulledModel) -> String {
    let path = pulled.path.display();
    let Some(summary) = &pulled.summary else { return format!("{path} is already complete") };
    let rate = summary.kept_bytes as f64 / summary.elapsed.as_secs_f64().max(1e-3);
    let mut text = format!(
        "{path}: {} from {} peers in {:.1} s, {}/s",
        Size(summary.kept_bytes),
        summary.bytes_by_peer.len(),
        summary.elapsed.as_secs_f64(),
        Size(rate as u64)
    );
    if pulled.local_bytes > 0 {
        text += &format!(
            "; {} were already here, {} of them in other files",
            Size(pulled.local_bytes),
            Size(pulled.reused_bytes)
        );
    }
    if summary.wasted_bytes > 0 {
        text += &format!("; {} were discarded", Size(summary.wasted_bytes));
    }
    for peer in &summary.banned_peers {
        text += &format!("; {peer} sent wrong bytes and was banned");
    }
    if let Some(reason) = &summary.picker_error {
        text += &format!("; the piece picker failed, and pieces were fetched in order: {reason}");
    }
    text
}
