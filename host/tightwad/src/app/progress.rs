//! How far something is: a bar on a terminal, plain lines off one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tightwad_core::Size;
use tightwad_modes::swarm::Pulled;
use tightwad_swarm::net::Progress;
use tokio::sync::watch;

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

/// Runs a pull, and shows how far it is.
pub(crate) async fn watched<F: Future>(
    what: &str,
    as_json: bool,
    pull: impl FnOnce(watch::Sender<Progress>) -> F,
) -> F::Output {
    let (sender, mut progress) = watch::channel(Progress::default());
    let mut bar = Bar::new(what, 0);
    let mut pulling = std::pin::pin!(pull(sender));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let mut told = true;
    loop {
        tokio::select! {
            done = &mut pulling => return done,
            news = progress.changed(), if told => {
                told = news.is_ok();
                if !as_json {
                    bar.show(&progress.borrow_and_update());
                }
            }
            _ = second.tick(), if as_json => {
                let now = progress.borrow().clone();
                println!(
                    "{}",
                    json!({"had": now.bytes_had, "wanted": now.bytes_wanted, "rate": now.rate, "peers": now.peers})
                );
            }
        }
    }
}

/// What a pull did, in words.
pub(crate) fn settled(pulled: &Pulled) -> String {
    let path = pulled.path.display();
    let Some(summary) = &pulled.summary else { return format!("{path} is there already, whole") };
    let rate = summary.bytes as f64 / summary.took.as_secs_f64().max(1e-3);
    let mut said = format!(
        "{path}: {} from {} peers in {:.1} s, {}/s",
        Size(summary.bytes),
        summary.from.len(),
        summary.took.as_secs_f64(),
        Size(rate as u64)
    );
    if pulled.here > 0 {
        said += &format!(
            "; {} were here already, {} of them in other files",
            Size(pulled.here),
            Size(pulled.reused)
        );
    }
    if summary.wasted > 0 {
        said += &format!("; {} came for nothing", Size(summary.wasted));
    }
    for peer in &summary.banned {
        said += &format!("; {peer} sent what is not in the manifest, and was banned");
    }
    if let Some(reason) = &summary.picker_failed {
        said += &format!("; the plugin failed and pieces were fetched in order: {reason}");
    }
    said
}
