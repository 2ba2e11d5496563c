//! The standard library's source, to build components with: WebAssembly's is not installed
//! everywhere, and only a source of exactly the compiler's version compiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{output, run, works};

/// The folder `library/` below `place`: a copy of what rustup installed, or Debian's `rust-src` of
/// the same version. Below the workspace that is built, because cargo hashes paths that are not,
/// and the same source would give other bytes on another machine.
pub(crate) fn library(place: &Path) -> Result<PathBuf> {
    let version = version()?;
    let library = place.join(format!("usr/src/rustc-{version}/library"));
    if library.join("Cargo.lock").exists() {
        return Ok(library);
    }
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    let shipped = sysroot.join("lib/rustlib/src/rust/library");
    if shipped.join("Cargo.lock").exists() {
        fs::create_dir_all(library.parent().unwrap_or(place))?;
        run(Command::new("cp").arg("-r").arg(shipped).arg(&library))?;
    } else {
        debian(&version, place).context("`rustup component add rust-src` is another way")?;
    }
    Ok(library)
}

fn version() -> Result<String> {
    let long = output(Command::new("rustc").arg("-vV"))?;
    let release = long.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc does not say its release")?.to_owned())
}

/// From the backports of the mirror that this machine uses anyway; installs nothing.
fn debian(version: &str, place: &Path) -> Result<()> {
    if !works("apt-get", "--version") || !works("dpkg-deb", "--version") {
        bail!("this is no Debian, whose package rust-src {version} would do");
    }
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let mirrors = output(Command::new("apt-get").args(format))?;
    let mut mirrors: Vec<&str> = mirrors.lines().filter(|line| !line.contains("security")).collect();
    mirrors.sort_unstable();
    let mirror = mirrors.first().context("apt-get knows no mirror; run `apt-get update`")?;
    let apt = place.join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial", "deb"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let list = apt.join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&list, format!("deb [signed-by={keys}] {mirror} trixie-backports main\n"))?;
    let options = [
        format!("Dir::State={}", apt.join("state").display()),
        "Dir::State::status=/var/lib/dpkg/status".to_owned(),
        format!("Dir::Cache={}", apt.join("cache").display()),
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let with_options = |program: &str| {
        let mut command = Command::new(program);
        options.iter().for_each(|option| {
            command.args(["-o", option]);
        });
        command
    };
    run(with_options("apt-get").args(["-qq", "update"]))?;
    let versions = output(with_options("apt-cache").args(["madison", "rust-src"]))?;
    let own = |line: &str| line.split('|').nth(1).map(str::trim).map(str::to_owned);
    let package =
        versions.lines().filter_map(own).find(|package| package.starts_with(&format!("{version}+")));
    let package = package.with_context(|| format!("the mirror's backports have no rust-src {version}"))?;
    let debs = apt.join("deb");
    run(with_options("apt-get")
        .args(["-qq", "download", &format!("rust-src={package}")])
        .current_dir(&debs))?;
    let deb = fs::read_dir(&debs)?.flatten().next().context("apt-get downloaded nothing")?.path();
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(place))
}
