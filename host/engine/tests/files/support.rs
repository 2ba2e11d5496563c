//! Files made from the models of the zoo.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use tightwad_engine::{LoadError, Weights};
use tightwad_zoo::{GgufFile, Kind, Zoo};

fn zoo() -> Zoo {
    let models = std::env::var_os("TIGHTWAD_MODELS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")), PathBuf::from);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zoo");
    Zoo::new(&models.join("smollm2-135m-instruct.gguf"), &folder)
}

/// A small model that loads.
pub(crate) fn model() -> PathBuf {
    zoo().model(Kind::Llama).expect("run `cargo xtask models` first")
}

/// The content of a model without weights. Its header is checked before its weights are missed.
pub(crate) fn vocabulary() -> GgufFile {
    static CONTENT: LazyLock<GgufFile> = LazyLock::new(|| content_of(Kind::Vocabulary("smollm")));
    CONTENT.clone()
}

/// The content of a small model that loads.
pub(crate) fn content() -> GgufFile {
    static CONTENT: LazyLock<GgufFile> = LazyLock::new(|| content_of(Kind::Llama));
    CONTENT.clone()
}

fn content_of(kind: Kind) -> GgufFile {
    zoo().content(kind).expect("run `cargo xtask models` first")
}

/// An empty folder for one test.
pub(crate) fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("files").join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Lets this program try unknown files: the test `trial::child` is the child process.
pub(crate) fn enable_trials() {
    static ENABLED: Once = Once::new();
    ENABLED.call_once(|| {
        tightwad_engine::select_row_invariant_kernels();
        let program = std::env::current_exe().unwrap();
        let arguments = ["--exact", "trial::child", "--nocapture"].map(Into::into);
        let command = std::iter::once(program.into()).chain(arguments).collect();
        tightwad_engine::enable_trials(command, Some(records()));
    });
}

/// The folder with the records of passed files.
pub(crate) fn records() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("files-records")
}

/// The error of loading the file at `path`, without the path.
pub(crate) fn load_error(path: &Path) -> String {
    enable_trials();
    without_path(path, Weights::load(path, 0).map(drop).unwrap_err())
}

fn without_path(path: &Path, error: LoadError) -> String {
    let message = error.to_string();
    assert!(message.contains(&path.display().to_string()), "{message}");
    assert!(!message.contains("ownload it again"), "{message}");
    message.replace(&path.display().to_string(), "FILE")
}
