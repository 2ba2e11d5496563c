//! What a script asks for.

use std::path::PathBuf;
use std::time::Duration;

use crate::token::Token;

/// `tw.pooling{}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolSpec {
    /// The GGUF file, on this machine.
    pub path: PathBuf,
    /// The name in reports and metrics.
    pub name: String,
    /// The machines that may be used.
    pub workers: Vec<WorkerSpec>,
    /// Layers may also lie on this machine.
    pub local: bool,
    /// Tokens a sequence may have.
    pub context: Option<u32>,
    /// Sequences that run at once.
    pub slots: u32,
    /// Requests that may wait for a slot.
    pub queue: Option<u32>,
    /// Threads of a forward pass on this machine.
    pub threads: Option<u32>,
    /// The placement plugin; default: the built-in one.
    pub plugin: Option<String>,
    /// Tensors, by regular expression, and the worker that has them; `None`: this machine.
    pub pins: Vec<(String, Option<String>)>,
    /// Unloads the model when nobody used it for so long.
    pub ttl: Option<Duration>,
    /// Never unloads it to make room for another.
    pub pinned: bool,
    /// Loads it with the first request, not with the script.
    pub on_demand: bool,
    /// How long a request waits for the pool to be ready.
    pub patience: Duration,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerSpec {
    /// `http://HOST:PORT`.
    pub url: String,
    /// The token it was started with.
    pub token: Option<Token>,
    /// The name in plans and errors.
    pub name: String,
}

impl WorkerSpec {
    /// A worker at `url`, which may leave `http://` out; named after its address unless `name` says
    /// otherwise. `None`: that is no address.
    #[must_use]
    pub fn new(url: &str, token: Option<&Token>, name: Option<String>) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let address = url.strip_prefix("http://").unwrap_or(url);
        let (host, port) = address.rsplit_once(':')?;
        if host.is_empty() || host.contains('/') || port.parse::<u16>().is_err() {
            return None;
        }
        Some(Self {
            url: format!("http://{address}"),
            token: token.cloned(),
            name: name.unwrap_or_else(|| address.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_named_after_their_address() {
        let worker = WorkerSpec::new("10.0.0.2:7711/", Token::new("t").ok().as_ref(), None).unwrap();
        assert_eq!((worker.url.as_str(), worker.name.as_str()), ("http://10.0.0.2:7711", "10.0.0.2:7711"));
        assert!(WorkerSpec::new("http://[::1]:7711", None, None).is_some());
        for wrong in ["", "10.0.0.2", "ftp://10.0.0.2:1", "10.0.0.2:port", ":7711"] {
            assert_eq!(WorkerSpec::new(wrong, None, None), None, "{wrong}");
        }
    }
}
