//! The source of the standard library. The build of components compiles it, because not every machine has the library for
//! WebAssembly. The source must have the compiler's exact version.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{is_available, output, run};

/// The folder `library/` of rustup, or of Debian's package `rust-src`, unpacked below `folder`. The returned path is a
/// link with a fixed name, because cargo hashes the path into every symbol.
pub(crate) fn library(folder: &Path) -> Result<PathBuf> {
    let version = version()?;
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?);
    let mut library = sysroot.join("lib/rustlib/src/rust/library");
    if !library.join("Cargo.lock").exists() {
        library = folder.join(format!("usr/src/rustc-{version}/library"));
    }
    if !library.join("Cargo.lock").exists() {
        debian(&version, folder).context("run `rustup component add rust-src` instead")?;
    }
    let link = Path::new("/tmp").join(format!("tightwad-rust-{version}"));
    // The rename replaces a link of another checkout, whose target can be deleted.
    let temporary_link = link.with_extension(std::process::id().to_string());
    std::os::unix::fs::symlink(&library, &temporary_link)?;
    fs::rename(&temporary_link, &link)
        .with_context(|| format!("cannot create the link {}", link.display()))?;
    Ok(link)
}

fn version() -> Result<String> {
    let long = output(Command::new("rustc").arg("-vV"))?;
    let release = long.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.context("rustc reports no release")?.to_owned())
}

/// Downloads the package from the backports of this machine's mirror. Installs nothing.
fn debian(version: &str, folder: &Path) -> Result<()> {
    if !is_available("apt-get", "--version") || !is_available("dpkg-deb", "--version") {
        bail!("this system is not Debian, which has the package rust-src {version}");
    }
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let mirrors = output(Command::new("apt-get").args(format))?;
    let mut mirrors: Vec<&str> = mirrors.lines().filter(|line| !line.contains("security")).collect();
    mirrors.sort_unstable();
    let mirror = mirrors.first().context("apt-get knows no mirror. Run `apt-get update`.")?;
    let options = options(folder, mirror)?;
    let apt = folder.join("apt");
    let with_options = |program: &str| {
        let mut command = Command::new(program);
        options.iter().for_each(|option| {
            command.args(["-o", option]);
        });
        command
    };
    run(with_options("apt-get").args(["-qq", "update"]))?;
    let versions = output(with_options("apt-cache").args(["madison", "rust-src"]))?;
    let package_version = |line: &str| line.split('|').nth(1).map(str::trim).map(str::to_owned);
    let package = versions
        .lines()
        .filter_map(package_version)
        .find(|package| package.starts_with(&format!("{version}+")));
    let package = package.with_context(|| format!("the mirror's backports have no rust-src {version}"))?;
    let debs = apt.join("deb");
    run(with_options("apt-get")
        .args(["-qq", "download", &format!("rust-src={package}")])
        .current_dir(&debs))?;
    let deb = fs::read_dir(&debs)?.flatten().next().context("apt-get downloaded nothing")?.path();
    run(Command::new("dpkg-deb").arg("--extract").arg(deb).arg(folder))
}

/// Options that restrict apt to one suite of `mirror` and to files below `folder`.
fn options(folder: &Path, mirror: &str) -> Result<[String; 7]> {
    let apt = folder.join("apt");
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
