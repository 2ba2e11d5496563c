//! llama.cpp's own server, as a registry carries it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{python, root, small};

/// A package with the server of a recent llama.cpp, for all processors with AVX2.
const PACKAGE: &str = "xllamacpp==2026.10.11549";

/// Ended by its process id when dropped.
pub struct LlamaServer {
    child: Child,
    pub url: String,
}

impl LlamaServer {
    /// Serves the small model to `sequences` requests at once.
    pub fn start(sequences: u32) -> Self {
        let mut child = Command::new("python3")
            .arg(root().join("tests/clients/llama_server.py"))
            .arg(small())
            .arg(sequences.to_string())
            .env("PYTHONPATH", python("python-llama-server", &[PACKAGE]))
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
