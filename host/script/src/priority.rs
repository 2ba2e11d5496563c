//! Lowers the priority of threads.

/// A thread of this process.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(crate) struct Thread(rustix::thread::Pid);

#[cfg(target_os = "linux")]
impl Thread {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        Self(rustix::thread::gettid())
    }

    /// Sets the lowest priority, permanently. On Linux, a priority belongs to a thread.
    pub(crate) fn lower(&self) {
        if let Err(error) = rustix::process::setpriority_process(Some(self.0), 19) {
            tracing::debug!(%error, "cannot lower the priority of a thread");
        }
    }
}

/// A thread of this process. Its priority cannot be changed on this system.
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
