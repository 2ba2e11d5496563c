//! The standard library's source, to build components with: WebAssembly's is not installed
//! everywhere, and only a source of exactly the compiler's version compiles.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{output, run, works};

/// The folder `library/`: what rustup installed, or Debian's `rust-src` of the same version, unpacked
/// below `place`. Reached by a link whose path is the same everywhere: cargo hashes the path into
/// every symbol, and the same source would give other bytes elsewhere.
pub(crate) fn library(place: &Path) -> Result<PathBuf> {
    let version = version()?;
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    let mut library = sysroot.join("lib/rustlib/src/rust/library");
    if !library.join("Cargo.lock").exists() {
        library = place.join(format!("usr/src/rustc-{version}/library"));
    }
    if !library.join("Cargo.lock").exists() {
        debian(&version, place).context("`rustup component add rust-src` is another way")?;
    }
    let link = Path::new("/tmp").join(format!("tightwad-rust-{version}"));
    // A link left by another checkout may point to what is gone.
    let own = link.with_extension(std::process::id().to_string());
    std::os::unix::fs::symlink(&library, &own)?;
    fs::rename(&own, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
    Ok(link)
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
    let options = options(place, mirror)?;
    let apt = place.join("apt");
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

/// Options that keep apt to one suite of `mirror`, and all it writes below `place`.
fn options(place: &Path, mirror: &str) -> Result<[String; 7]> {
    let apt = place.join("apt");
    for folder in ["state/lists/partial", "cache/archives/partial", "deb"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let list = apt.join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&list, format!("deb [signed-by={keys}] {mirror} trixie-backports main\n"))?;
    Ok([
        format!("Dir::State={}", apt.join("state").display()),
        "Dir::State::status=/var/lib/dpkg/status".to_owned(),
        format!("Dir::Cache={}", apt.join("cache").display()),
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=-".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ])
}
