//! The local names of pulled models. Peers do not choose them.

use std::path::{Path, PathBuf};

use tightwad_swarm::ModelRef;
use tightwad_swarm::disk::Manifest;

/// The digits of the root in the name of a file that the user did not name.
const DIGITS_IN_NAME: usize = 12;

/// `manifest` under a local name: the name that the user asked for, or the name that the digest covers. The
/// peer's name does not count.
pub(crate) fn with_local_name(manifest: Manifest, wanted: &ModelRef) -> Manifest {
    let name = match wanted.name() {
        Some(name) => name.trim_end_matches(".gguf").to_owned(),
        None => manifest.model_name().unwrap_or_else(|| "model".to_owned()),
    };
    manifest.with_name(&name)
}

/// The path of the file: `to` itself, or a file in the folder `to` with the local name of `manifest`. A file
/// that the user did not name has the digest in its name, so that two models never have one name.
pub(crate) fn file_path(to: &Path, manifest: &Manifest, wanted: &ModelRef) -> PathBuf {
    if !is_folder(to) {
        return to.to_owned();
    }
    let name = manifest.name();
    match wanted.name() {
        Some(_) => to.join(format!("{name}.gguf")),
        None => to.join(format!("{name}-{:.DIGITS_IN_NAME$}.gguf", manifest.root().to_string())),
    }
}

/// Whether the user named the file, by its path or by the model's name.
pub(crate) fn is_named_by_user(to: &Path, wanted: &ModelRef) -> bool {
    !is_folder(to) || wanted.name().is_some()
}

fn is_folder(to: &Path) -> bool {
    to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(folder: &Path) -> Manifest {
        let path = folder.join("source");
        std::fs::write(&path, [7; 5000]).unwrap();
        Manifest::build(&path, 4096, Some("chosen-by-a-peer"), &|_| ()).unwrap()
    }

    #[test]
    fn file_has_the_name_that_the_user_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path();
        let original = manifest(to);
        let root = original.root().to_string();
        let named = |wanted: &str, to: &Path| {
            let wanted: ModelRef = wanted.parse().unwrap();
            let local = with_local_name(original.clone(), &wanted);
            assert_eq!(local.root(), original.root());
            file_path(to, &local, &wanted)
        };
        assert_eq!(named("big", to), to.join("big.gguf"));
        assert_eq!(named("big.gguf", to), to.join("big.gguf"));
        assert_eq!(named(&format!("big@{root}"), to), to.join("big.gguf"));
        assert_eq!(named("../../etc/big", to), to.join("etc-big.gguf"));
        assert_eq!(named("part-00001-of-00003", to), to.join("part-00001-of-00003.gguf"));
        assert_eq!(named(&root, to), to.join(format!("model-{}.gguf", &root[..12])));
        assert_eq!(named(&root, &to.join("mine.gguf")), to.join("mine.gguf"));
    }

    #[test]
    fn bare_digest_names_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let digest: ModelRef = "0".repeat(64).parse().unwrap();
        let named: ModelRef = format!("big@{digest}").parse().unwrap();
        assert!(!is_named_by_user(folder.path(), &digest));
        assert!(is_named_by_user(folder.path(), &named));
        assert!(is_named_by_user(&folder.path().join("big.gguf"), &digest));
    }
}
