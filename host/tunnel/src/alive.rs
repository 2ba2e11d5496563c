//! Signs of life.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::frame::{Kind, write};
use crate::protocol::{BEAT, SILENCE};

/// A reader that records when it begins to wait for bytes.
pub(crate) struct Alive<R> {
    inner: R,
    clock: Clock,
}

/// The time at which a reader began to wait. A reader that passes bytes on to a busy RPC server does not wait:
/// the other end may have sent more.
#[derive(Clone)]
pub(crate) struct Clock {
    start: Instant,
    /// Milliseconds since `start`, or `NOT_WAITING`.
    waiting_since: Arc<AtomicU64>,
}

/// The reader does not wait, or is not polled.
const NOT_WAITING: u64 = u64::MAX;

impl<R> Alive<R> {
    pub(crate) fn new(inner: R) -> (Self, Clock) {
        let waiting_since = Arc::new(AtomicU64::new(NOT_WAITING));
        let clock = Clock { start: Instant::now(), waiting_since };
        (Self { inner, clock: clock.clone() }, clock)
    }
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, waiting: bool) {
        if !waiting {
            self.waiting_since.store(NOT_WAITING, Ordering::Relaxed);
        } else if self.waiting_since.load(Ordering::Relaxed) == NOT_WAITING {
            self.waiting_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Completes when the reader waits for longer than `SILENCE`.
    pub(crate) async fn silence(&self) {
        loop {
            let silent = self.now().saturating_sub(self.waiting_since.load(Ordering::Relaxed));
            if u128::from(silent) > SILENCE.as_millis() {
                return;
            }
            sleep(BEAT).await;
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Alive<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.clock.note(polled.is_pending());
        polled
    }
}

/// Says again and again that this end lives.
pub(crate) async fn beat<W: AsyncWrite + Unpin>(to: &Mutex<W>) -> io::Result<()> {
    loop {
        sleep(BEAT).await;
        write(&mut *to.lock().await, Kind::Beat, &[]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::frame::Message;

    #[tokio::test(start_paused = true)]
    async fn silence_begins_with_the_last_byte() {
        let (mut peer, own) = duplex(64);
        let (mut own, clock) = Alive::new(own);
        let start = Instant::now();
        tokio::join!(
            async {
                sleep(Duration::from_secs(8)).await;
                peer.write_all(&[1]).await.unwrap();
                clock.silence().await;
            },
            async {
                own.read_u8().await.unwrap();
                let more = tokio::time::timeout(Duration::from_secs(30), own.read_u8()).await;
                assert!(more.is_err());
            },
            async {
                clock.silence().await;
                let silent = start.elapsed();
                assert!(silent > Duration::from_secs(8) + SILENCE, "after {silent:?}");
                assert!(silent < Duration::from_secs(8) + SILENCE + 2 * BEAT, "after {silent:?}");
            },
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_does_something_else_does_not_wait() {
        let (_peer, own) = duplex(64);
        let (_own, clock) = Alive::new(own);
        let silence = tokio::time::timeout(10 * SILENCE, clock.silence()).await;
        assert!(silence.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_is_sent_every_second_until_the_peer_leaves() {
        let (mut peer, own) = duplex(64);
        let own = Mutex::new(own);
        let start = Instant::now();
        let listen = async move {
            for count in 1..=5 {
                let frame = Message::read(&mut peer).await.unwrap().unwrap();
                assert_eq!((frame.frame(), frame.body.len()), (Some(Kind::Beat), 0));
                assert_eq!(start.elapsed().as_secs(), count);
            }
        };
        let (sent, ()) = tokio::join!(beat(&own), listen);
        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
