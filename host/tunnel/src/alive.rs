//! Signs of life.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::frame::{Kind, write};
use crate::protocol::{BEAT, SILENCE};

/// Notes when something was read.
pub(crate) struct Alive<R> {
    inner: R,
    clock: Clock,
}

/// When that was.
#[derive(Clone)]
pub(crate) struct Clock {
    start: Instant,
    /// Milliseconds since `start`.
    last: Arc<AtomicU64>,
}

impl<R> Alive<R> {
    pub(crate) fn new(inner: R) -> (Self, Clock) {
        let clock = Clock { start: Instant::now(), last: Arc::default() };
        (Self { inner, clock: clock.clone() }, clock)
    }
}

impl Clock {
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Completes when nothing was read for too long.
    pub(crate) async fn silence(&self) {
        loop {
            let silent = self.now().saturating_sub(self.last.load(Ordering::Relaxed));
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
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.clock.last.store(self.clock.now(), Ordering::Relaxed);
        }
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
