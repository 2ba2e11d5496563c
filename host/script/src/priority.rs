//! Threads that must not take processor time from others.

/// A thread of this process.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Thread(rustix::thread::Pid);

#[cfg(target_os = "linux")]
impl Thread {
    /// The thread that asks.
    pub(crate) fn current() -> Self {
        Self(rustix::thread::gettid())
    }

    /// Gives it the lowest priority, for good. Linux knows a priority for each thread.
    pub(crate) fn lower(&self) {
        if let Err(error) = rustix::process::setpriority_process(Some(self.0), 19) {
            tracing::debug!(%error, "the priority of a thread cannot be lowered");
        }
    }
}

/// A thread of this process, whose priority cannot be changed here.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Thread;

#[cfg(not(target_os = "linux"))]
impl Thread {
    pub(crate) fn current() -> Self {
        Self
    }

    pub(crate) fn lower(&self) {}
}
