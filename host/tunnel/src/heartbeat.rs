//! Heartbeats, and the detection of a silent end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::frame::{FrameKind, FrameWriter};
use crate::protocol::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT};

/// A reader that records since when it waits for bytes.
pub(crate) struct MonitoredReader<R> {
    inner: R,
    monitor: SilenceMonitor,
}

/// Detects that a [`MonitoredReader`] waits for too long.
///
/// Silence counts only while the reader waits for bytes. A reader that waits for a busy RPC server can have unread bytes.
#[derive(Clone)]
pub(crate) struct SilenceMonitor {
    start: Instant,
    /// Milliseconds since `start`, or `NOT_WAITING`.
    waiting_since: Arc<AtomicU64>,
}

/// The value while the reader does not wait, or while no task polls the reader.
const NOT_WAITING: u64 = u64::MAX;

impl<R> MonitoredReader<R> {
    pub(crate) fn new(inner: R) -> (Self, SilenceMonitor) {
        let waiting_since = Arc::new(AtomicU64::new(NOT_WAITING));
        let monitor = SilenceMonitor { start: Instant::now(), waiting_since };
        (Self { inner, monitor: monitor.clone() }, monitor)
    }
}

impl SilenceMonitor {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn record(&self, waiting: bool) {
        if !waiting {
            self.waiting_since.store(NOT_WAITING, Ordering::Relaxed);
        } else if self.waiting_since.load(Ordering::Relaxed) == NOT_WAITING {
            self.waiting_since.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Completes when the reader has waited for longer than `HEARTBEAT_TIMEOUT`.
    pub(crate) async fn timed_out(&self) {
        loop {
            let waited_ms = self.now_ms().saturating_sub(self.waiting_since.load(Ordering::Relaxed));
            if u128::from(waited_ms) > HEARTBEAT_TIMEOUT.as_millis() {
                return;
            }
            sleep(HEARTBEAT_INTERVAL).await;
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for MonitoredReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.monitor.record(polled.is_pending());
        polled
    }
}

/// Sends a heartbeat in each interval until the connection fails.
pub(crate) async fn send_heartbeats<W: AsyncWrite + Unpin>(to: &Mutex<FrameWriter<W>>) -> io::Result<()> {
    loop {
        sleep(HEARTBEAT_INTERVAL).await;
        to.lock().await.write(FrameKind::Heartbeat, &[]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::rpc::Header;

    #[tokio::test(start_paused = true)]
    async fn timeout_starts_at_the_last_byte() {
        let (mut peer, local) = duplex(64);
        let (mut local, monitor) = MonitoredReader::new(local);
        let start = Instant::now();
        tokio::join!(
            async {
                sleep(Duration::from_secs(8)).await;
                peer.write_all(&[1]).await.unwrap();
                monitor.timed_out().await;
            },
            async {
                local.read_u8().await.unwrap();
                let more = tokio::time::timeout(Duration::from_secs(30), local.read_u8()).await;
                assert!(more.is_err());
            },
            async {
                monitor.timed_out().await;
                let elapsed = start.elapsed();
                let earliest = Duration::from_secs(8) + HEARTBEAT_TIMEOUT;
                assert!(elapsed > earliest, "after {elapsed:?}");
                assert!(elapsed < earliest + 2 * HEARTBEAT_INTERVAL, "after {elapsed:?}");
            },
        );
    }

    #[tokio::test(start_paused = true)]
    async fn reader_that_is_not_polled_does_not_time_out() {
        let (_peer, local) = duplex(64);
        let (_reader, monitor) = MonitoredReader::new(local);
        let timed_out = tokio::time::timeout(10 * HEARTBEAT_TIMEOUT, monitor.timed_out()).await;
        assert!(timed_out.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_sent_every_second_until_the_peer_disconnects() {
        let (mut peer, local) = duplex(64);
        let local = Mutex::new(FrameWriter::new(local));
        let start = Instant::now();
        let listen = async move {
            for count in 1..=5 {
                let header = Header::read(&mut peer).await.unwrap().unwrap();
                assert_eq!((FrameKind::of(header), header.body_bytes), (Some(FrameKind::Heartbeat), 0));
                assert_eq!(start.elapsed().as_secs(), count);
            }
        };
        let (sent, ()) = tokio::join!(send_heartbeats(&local), listen);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
