use std::fs;
use std::time::Duration;

use tightwad_core::{Request, WatchTiming, WatchedFiles, relay};

use crate::fake_factory::FakeFactory;
use crate::loader::{load, load_watched};

use super::*;

/// Loads a script from files. Returns the error.
async fn load_files(files: &[(&str, &str)]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let loaded = load(&folder.path().join("s.lua"), Arc::new(FakeFactory), &[]).await;
    let folder_name = format!("{}/", folder.path().display());
    loaded.map(|_| ()).map_err(|error| error.to_string().replace(&folder_name, ""))
}

#[tokio::test]
async fn module_in_a_folder_can_make_backends() {
    let script = "local routes = require 'lib.routes' return require 'tightwad'.serve { models = routes }";
    let module = "return { a = require 'tightwad'.model { path = 'm.gguf' } }";
    assert_eq!(load_files(&[("s.lua", script), ("lib/routes.lua", module)]).await, Ok(()));
}

#[tokio::test]
async fn modules_that_require_each_other_are_refused() {
    let error = load_files(&[("s.lua", "require 'a'"), ("a.lua", "require 'b'"), ("b.lua", "require 'a'")])
        .await
        .unwrap_err();
    assert!(error.contains("the module 'a' requires itself, directly or through another module"), "{error}");
}

#[tokio::test]
async fn module_outside_the_folder_is_refused() {
    for name in ["../x", "..", "/etc/passwd", "a/../b", ".x", "x.", "a..b", "\\0", ""] {
        let error = load_files(&[("s.lua", &format!("require '{name}'"))]).await.unwrap_err();
        assert!(error.starts_with("s.lua:1: '") && error.contains("is not a module"), "{name}: {error}");
    }
}

#[tokio::test]
async fn failed_module_fails_again() {
    let script =
        "local ok, first = pcall(require, 'broken') error(tostring(select(2, pcall(require, 'broken'))), 0)";
    let error = load_files(&[("s.lua", script), ("broken.lua", "error('no luck', 0)")]).await.unwrap_err();
    assert!(error.contains("no luck"), "{error}");
}

#[tokio::test]
async fn changed_module_of_a_failed_script_is_a_change() {
    let timing = WatchTiming { poll_interval: Duration::from_millis(5), ..WatchTiming::default() };
    let folder = tempfile::tempdir().unwrap();
    let (script, module) = (folder.path().join("s.lua"), folder.path().join("lib/routes.lua"));
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(&script, "return require 'tightwad'.serve { models = require 'lib.routes' }").unwrap();
    fs::write(&module, "this is not Lua").unwrap();
    let files = Arc::new(WatchedFiles::default());
    let load = async || load_watched(&script, Arc::new(FakeFactory), &[], &files).await;
    assert!(load().await.is_err());
    fs::write(&module, "return { a = function() return 'first' end, b = function() return 'first' end }")
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), files.changed(timing)).await.unwrap();
    let models = load().await.unwrap().models;
    // All runs of a script read the same modules.
    fs::write(&module, "this is not Lua either").unwrap();
    for (name, backend) in models {
        let mut text = String::new();
        let outcome = relay(backend.as_ref(), Request::default(), |event| {
            text.push_str(&event.text);
            async { true }
        });
        outcome.await.unwrap();
        assert_eq!(text, "first", "{name}");
    }
    tokio::time::timeout(Duration::from_secs(20), files.changed(timing)).await.unwrap();
}
