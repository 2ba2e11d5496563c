//! The pools and workers that a script configures.

use std::path::PathBuf;
use std::time::Duration;

use crate::spec::PluginSpec;
use crate::token::Token;

/// The configuration of one pool: the keys of `tw.pooling`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolSpec {
    /// The GGUF file on the host.
    pub path: PathBuf,
    /// The name in reports and metrics.
    pub name: String,
    /// The workers that may hold layers.
    pub workers: Vec<WorkerSpec>,
    /// True when the host may hold layers too.
    pub include_host: bool,
    /// The maximum number of tokens of a sequence.
    pub context: Option<u32>,
    /// The number of sequences that run at the same time.
    pub slots: u32,
    /// The maximum number of requests that wait for a slot.
    pub max_queue: Option<u32>,
    /// The threads of a forward pass on the host.
    pub threads: Option<u32>,
    /// The placement policy; `None`: the built-in one.
    pub policy: Option<PluginSpec>,
    /// Regular expressions of tensor names, each with the worker that holds these tensors; `None`: the host.
    pub override_tensors: Vec<(String, Option<String>)>,
    /// The idle time after which the pool unloads the model; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// True when the host must not unload the model, neither for another pool nor after the idle time.
    pub keep_loaded: bool,
    /// True when the first request loads the model; false when the script does.
    pub on_demand: bool,
    /// The maximum time that a request waits until the pool is ready.
    pub wait_timeout: Duration,
}

/// The configuration of one worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerSpec {
    /// The address: `tightwad://HOST:PORT#FINGERPRINT` or `http://HOST:PORT`.
    pub url: String,
    /// The token of the worker.
    pub token: Option<Token>,
    /// The name in plans and errors.
    pub name: String,
}

impl WorkerSpec {
    /// A worker at `url`, with or without `http://`. The default name is the address. Returns `None` if `url` is not a
    /// valid address.
    #[must_use]
    pub fn new(url: &str, token: Option<&Token>, name: Option<String>) -> Option<Self> {
        let url = url.trim_end_matches('/');
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme @ ("http" | "tightwad"), rest)) => (scheme, rest),
            None => ("http", url),
            Some(_) => return None,
        };
        let address = rest.split('#').next().unwrap_or_default();
        let (host, port) = address.rsplit_once(':')?;
        if host.is_empty() || host.contains(['/', '%']) || port.parse::<u16>().is_err() {
            return None;
        }
        Some(Self {
            url: format!("{scheme}://{rest}"),
            token: token.cloned(),
            name: name.unwrap_or_else(|| address.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_name_defaults_to_its_address() {
        let worker = WorkerSpec::new("10.0.0.2:7711/", Token::new("t").ok().as_ref(), None).unwrap();
        assert_eq!((worker.url.as_str(), worker.name.as_str()), ("http://10.0.0.2:7711", "10.0.0.2:7711"));
        assert!(WorkerSpec::new("http://[::1]:7711", None, None).is_some());
        let worker = WorkerSpec::new("tightwad://10.0.0.2:7711#ab", None, None).unwrap();
        assert_eq!(
            (worker.url.as_str(), worker.name.as_str()),
            ("tightwad://10.0.0.2:7711#ab", "10.0.0.2:7711")
        );
        for invalid in ["", "10.0.0.2", "ftp://10.0.0.2:1", "10.0.0.2:port", ":7711", "[fe80::1%eth0]:7711"] {
            assert_eq!(WorkerSpec::new(invalid, None, None), None, "{invalid}");
        }
    }
}
