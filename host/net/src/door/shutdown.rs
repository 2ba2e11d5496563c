//! The end of a server: the signal, and the deadline of the requests that still run.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a server does.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Serving,
    /// New requests are refused. Running ones must end before `deadline`.
    Draining {
        deadline: Instant,
    },
}

/// Reports the shutdown of a server to its connections and handlers. Clones share one state.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<Phase>);

impl Shutdown {
    /// A shutdown that never starts.
    #[must_use]
    pub fn never() -> Self {
        Self(watch::channel(Phase::Serving).1)
    }

    /// A shutdown that starts when `signal` completes, and whose deadline is `drain_timeout` later. The call needs a
    /// tokio runtime.
    pub fn after(signal: impl Future<Output = ()> + Send + 'static, drain_timeout: Duration) -> Self {
        let (phase, receiver) = watch::channel(Phase::Serving);
        tokio::spawn(async move {
            tokio::select! {
                () = signal => {
                    phase.send_replace(Phase::Draining { deadline: Instant::now() + drain_timeout });
                }
                () = phase.closed() => {}
            }
        });
        Self(receiver)
    }

    /// True after the shutdown has started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(*self.0.borrow(), Phase::Draining { .. })
    }

    /// Completes when the shutdown starts.
    pub async fn started(&self) {
        self.drain_deadline().await;
    }

    /// Completes at the deadline. A handler that still runs then must reply.
    pub async fn deadline(&self) {
        sleep_until(self.drain_deadline().await).await;
    }

    /// The deadline, once the shutdown has started.
    pub(crate) async fn drain_deadline(&self) -> Instant {
        let mut phase = self.0.clone();
        loop {
            if let Phase::Draining { deadline } = *phase.borrow_and_update() {
                return deadline;
            }
            if phase.changed().await.is_err() {
                return pending().await;
            }
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::never()
    }
}
