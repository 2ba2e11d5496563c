//! Finds or installs the build tools beside Rust and a C compiler: cmake and libclang.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{is_available, run, target};

/// The environment variables that lead cargo to the tools.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    variables: Vec<(&'static str, String)>,
}

impl Tools {
    /// Sets the variables of the tools for `command`.
    pub(crate) fn for_command<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables.iter().map(|(name, value)| (name, value)))
    }
}

/// Installs the missing tools, and returns their variables.
pub(crate) fn install() -> Result<Tools> {
    if is_available("cmake", "--version") && has_libclang() {
        return Ok(Tools::default());
    }
    let packages = target().join("tools");
    if !packages.join("clang").exists() {
        if is_root() && is_available("apt-get", "--version") {
            eprintln!("installing cmake and libclang with apt-get");
            run(Command::new("apt-get").args(["update", "-qq"]))?;
            run(Command::new("apt-get")
                .args(["install", "-y", "-qq", "cmake", "libclang-dev"])
                .env("DEBIAN_FRONTEND", "noninteractive"))?;
            return Ok(Tools::default());
        }
        eprintln!("fetching cmake and libclang with pip into {}", packages.display());
        run(Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
            .arg(&packages)
            .args(["cmake", "libclang"]))
        .context("install cmake and libclang: neither root nor pip is available")?;
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let cmake = packages.join("cmake/data/bin");
    let libclang = packages.join("clang/native");
    Ok(Tools {
        variables: vec![
            ("PATH", format!("{}:{path}", cmake.display())),
            ("LIBCLANG_PATH", libclang.display().to_string()),
        ],
    })
}

fn is_root() -> bool {
    crate::shell::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

fn has_libclang() -> bool {
    if std::env::var_os("LIBCLANG_PATH").is_some() {
        return true;
    }
    let is_libclang = |path: &Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libclang"))
            && path.extension().is_some_and(|extension| extension == "so" || extension != "a")
    };
    let folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu"];
    let llvm =
        entries_of(Path::new("/usr/lib")).into_iter().filter(|path| path.to_string_lossy().contains("llvm"));
    let folders_to_search = folders.iter().map(PathBuf::from).chain(llvm.map(|path| path.join("lib")));
    folders_to_search.flat_map(|folder| entries_of(&folder)).any(|path| is_libclang(&path))
}

fn entries_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}
