//! What a connection does, and since when.
//!
//! Invariant: the phase and its start change in one step, so that no reader sees the start of another phase.
//! Only the task of the connection writes; the accept loop reads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::door::config::ConnectionLimits;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The connection is new, or the client sends the header of a request.
    Header,
    /// The client has sent no byte since the last response.
    Idle,
    /// The handler waits for the body of the request.
    Body,
    /// The handler works. No byte of the response exists.
    Handling,
    /// The server sends a response.
    Responding,
    /// The connection is a tunnel, which has its own time limits.
    Upgraded,
}

impl Phase {
    const BITS: u32 = 3;

    const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Header,
            1 => Self::Idle,
            2 => Self::Body,
            3 => Self::Handling,
            4 => Self::Responding,
            _ => Self::Upgraded,
        }
    }
}

/// The reason why the door closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    Header,
    Idle,
    Write,
}

/// The activity of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Times are milliseconds since this moment.
    epoch: Instant,
    /// The start of the phase, and the phase in the last bits.
    phase: AtomicU64,
    /// The moment since which the client has not read although bytes wait, plus one. 0: nothing waits.
    blocked: AtomicU64,
    /// True when the client of the current request can receive interim responses.
    interim: AtomicBool,
    /// A stream of events must send a comment.
    comment: AtomicBool,
    /// Asks the connection's task to close the connection.
    closing: Notify,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            phase: AtomicU64::new(Phase::Header as u64),
            blocked: AtomicU64::new(0),
            interim: AtomicBool::new(false),
            comment: AtomicBool::new(false),
            closing: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> Phase::BITS)
    }

    fn at(&self, millis: u64) -> Instant {
        self.epoch + Duration::from_millis(millis)
    }

    /// The phase and its start.
    pub(crate) fn phase(&self) -> (Phase, Instant) {
        let bits = self.phase.load(Ordering::Relaxed);
        (Phase::from_bits(bits & ((1 << Phase::BITS) - 1)), self.at(bits >> Phase::BITS))
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(self.now() << Phase::BITS | phase as u64, Ordering::Relaxed);
    }

    /// A request begins. `interim`: its client understands interim responses, and the connection can carry them.
    pub(crate) fn begin_request(&self, interim: bool) {
        self.interim.store(interim, Ordering::Relaxed);
        self.enter(Phase::Handling);
    }

    /// The client sends bytes.
    pub(crate) fn on_read(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Header);
        }
    }

    /// Bytes wait for the client.
    pub(crate) fn on_write_blocked(&self) {
        if self.blocked.load(Ordering::Relaxed) == 0 {
            self.blocked.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// The client has read bytes.
    pub(crate) fn on_written(&self) {
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.blocked.store(0, Ordering::Relaxed);
            if self.phase().0 == Phase::Idle {
                // The time in which the last bytes of a response wait is not idle time.
                self.enter(Phase::Idle);
            }
        }
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed) != 0
    }

    /// True while a client with a closed write side can be probed with an interim response.
    pub(crate) fn can_send_interim(&self) -> bool {
        self.phase().0 == Phase::Handling && self.interim.load(Ordering::Relaxed) && !self.is_blocked()
    }

    /// Asks a stream of events for a comment, which tests whether the client still exists.
    pub(crate) fn request_comment(&self) {
        self.comment.store(true, Ordering::Relaxed);
    }

    /// True once after [`Self::request_comment`].
    pub(crate) fn take_comment_request(&self) -> bool {
        self.comment.load(Ordering::Relaxed) && self.comment.swap(false, Ordering::Relaxed)
    }

    /// True while a request runs or a part of its response waits.
    pub(crate) fn is_busy(&self) -> bool {
        !matches!(self.phase().0, Phase::Header | Phase::Idle) || self.is_blocked()
    }

    /// Asks the connection's task to close the connection.
    pub(crate) fn close(&self) {
        self.closing.notify_one();
    }

    /// Completes after [`Self::close`].
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Completes when a time limit has passed.
    pub(crate) async fn expired(&self, limits: &ConnectionLimits) -> Expiry {
        let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
        loop {
            let now = Instant::now();
            // A phase that starts later ends later than this.
            let mut next = now + shortest;
            if let Some((deadline, expiry)) = self.deadline(limits) {
                if deadline <= now {
                    return expiry;
                }
                next = next.min(deadline);
            }
            sleep_until(next).await;
        }
    }

    fn deadline(&self, limits: &ConnectionLimits) -> Option<(Instant, Expiry)> {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked != 0 {
            return Some((self.at(blocked - 1) + limits.write_timeout, Expiry::Write));
        }
        match self.phase() {
            (Phase::Header, since) => Some((since + limits.header_timeout, Expiry::Header)),
            (Phase::Idle, since) => Some((since + limits.idle_timeout, Expiry::Idle)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> ConnectionLimits {
        let seconds = Duration::from_secs;
        ConnectionLimits {
            header_timeout: seconds(3),
            idle_timeout: seconds(10),
            write_timeout: seconds(5),
            ..ConnectionLimits::default()
        }
    }

    /// The whole seconds from now until a limit passes.
    async fn seconds_to_expiry(activity: &Activity) -> (u64, Expiry) {
        let start = Instant::now();
        let expiry = activity.expired(&limits()).await;
        (start.elapsed().as_secs(), expiry)
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_limit() {
        let activity = Activity::new();
        assert_eq!(seconds_to_expiry(&activity).await, (3, Expiry::Header));
        activity.enter(Phase::Idle);
        assert_eq!(seconds_to_expiry(&activity).await, (10, Expiry::Idle));
        activity.enter(Phase::Idle);
        activity.on_read();
        assert_eq!(seconds_to_expiry(&activity).await, (3, Expiry::Header));
        activity.enter(Phase::Responding);
        activity.on_write_blocked();
        assert_eq!(seconds_to_expiry(&activity).await, (5, Expiry::Write));
    }

    #[tokio::test(start_paused = true)]
    async fn handler_has_no_limit_while_nothing_waits() {
        let activity = Activity::new();
        activity.begin_request(true);
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, activity.expired(&limits())).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn header_limit_holds_after_a_change_during_the_wait() {
        let activity = Activity::new();
        activity.enter(Phase::Idle);
        let change = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            activity.on_read();
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        let limits = limits();
        tokio::select! { expiry = activity.expired(&limits) => assert_eq!(expiry, Expiry::Header), () = change => {} }
        assert_eq!(start.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn progress_of_a_slow_reader_restarts_the_write_limit() {
        let activity = Activity::new();
        activity.enter(Phase::Responding);
        let reads = async {
            for _ in 0..4 {
                activity.on_write_blocked();
                tokio::time::sleep(Duration::from_secs(4)).await;
                activity.on_written();
            }
        };
        let limits = limits();
        tokio::select! { expiry = activity.expired(&limits) => panic!("{expiry:?}"), () = reads => {} }
    }
}
