//! llama.cpp's own server, from a package of the Python registry.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{python_packages, repository_root, small_model};

/// A package with the server of a recent llama.cpp. It runs on all processors with AVX2.
const PACKAGE: &str = "xllamacpp==2026.10.11549";

/// A running server. Dropping it kills the process by its id.
pub struct LlamaServer {
    child: Child,
    pub url: String,
}

impl LlamaServer {
    /// Serves the small model to `sequences` concurrent requests.
    pub fn start(sequences: u32) -> Self {
        let mut child = Command::new("python3")
            .arg(repository_root().join("tests/clients/llama_server.py"))
            .arg(small_model())
            .arg(sequences.to_string())
            .env("PYTHONPATH", python_packages("python-llama-server", &[PACKAGE]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "{PACKAGE} did not start: {url}");
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
