//! The processes of a soak run.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::contest::Folder;
use crate::local_process::LocalProcess;

/// The processes of a run, and the folder of their files.
pub(crate) struct Lab {
    pub(crate) host: LocalProcess,
    pub(crate) node: LocalProcess,
    pub(crate) workers: Vec<LocalProcess>,
    script: PathBuf,
    pub(crate) plugins: PathBuf,
    model: PathBuf,
    pub(crate) folder: Folder,
}

impl Lab {
    /// Starts a host, a node and two workers with `model`. The host finds `policy` in its plugins folder.
    pub(crate) fn start(model: &Path, policy: &Path) -> Result<Self> {
        let folder = Folder::new("soak")?;
        let (path, model) = (folder.0.clone(), model.canonicalize()?);
        let log = |name: &str| path.join(format!("{name}.log"));
        let lent = format!("soak={}", model.display());
        let node = ["node", "--model", &lent, "--no-announce", "--threads", "1", "--context", "1024"];
        let node = LocalProcess::start(&node, &log("node"))?;
        let mut workers = Vec::new();
        for name in ["w1", "w2"] {
            let cache = path.join(format!("{name}.cache"));
            let worker = ["worker", "--threads", "1", "--cache-dir", &cache.display().to_string()];
            workers.push(LocalProcess::start(&worker, &log(name))?);
        }
        let (script, plugins) = (path.join("soak.lua"), path.join("plugins"));
        std::fs::create_dir_all(&plugins)?;
        std::fs::copy(policy, plugins.join("swapped.wasm"))?;
        std::fs::write(&script, soak_script(&model, &node, &workers, 0))?;
        let run = ["run", &script.display().to_string(), "--plugins-dir", &plugins.display().to_string()];
        let host = LocalProcess::start(&run, &log("host"))?;
        Ok(Self { host, node, workers, script, plugins, model, folder })
    }

    /// Writes the script again, with another version.
    pub(crate) fn write_script(&self, version: u64) -> Result<()> {
        std::fs::write(&self.script, soak_script(&self.model, &self.node, &self.workers, version))?;
        Ok(())
    }
}

/// The script of the host. `version` changes with every reload.
fn soak_script(model: &Path, node: &LocalProcess, workers: &[LocalProcess], version: u64) -> String {
    let model = model.display();
    let workers: Vec<String> = workers.iter().map(|worker| format!("{:?}", worker.url(""))).collect();
    format!(
        r#"-- version {version}
local tw = require "tightwad"
local plain = tw.model {{ path = "{model}", name = "plain", context = 1024, slots = 8 }}
local small = tw.model {{ path = "{model}", name = "small", context = 1024, slots = 4 }}
return tw.serve {{ models = {{
  plain = plain,
  fast = tw.speculation {{ target = plain, drafters = tw.lookup {{}} }},
  piped = function(req) return plain:generate(req) end,
  away = tw.node {{ url = "{node}", name = "away", fallback = plain }},
  pool = tw.pooling {{ model = "{model}", name = "pool", context = 1024, slots = 2, workers = {{ {workers} }} }},
  agreed = tw.consensus {{ target = plain, drafters = {{ small, plain }}, max_draft_tokens = 4, policy = "swapped" }},
  version = function(req) return "{version}" end,
}} }}
"#,
        node = node.url(""),
        workers = workers.join(", "),
    )
}
