//! The built-in piece picker, in the sandbox.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tightwad_modes::swarm::{PullSpec, PulledModel, SwarmError, open_complete, pull};
use tightwad_modes::{KINDS, PiecePicker, Settings};
use tightwad_net::door::Encryption;
use tightwad_sandbox::{Library, Limits, Plugin, PluginEngine, PluginError};
use tightwad_swarm::net::{Peer, PullLimits, SeedState, Seeds, serve};
use tightwad_swarm::{Event, Fetch, FetchResult, PeerId, Picker, Slot, Task};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The built-in piece picker.
async fn picker() -> Arc<PiecePicker> {
    let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
    let plugin = Library::new(engine, KINDS, Vec::new()).load::<PiecePicker>("swarm", None).await.unwrap();
    plugin.current()
}

/// A seeder of files, and a folder to pull into.
struct Swarm {
    folder: tempfile::TempDir,
    seeder: SocketAddr,
    seeds: Arc<Seeds>,
    picker: Arc<PiecePicker>,
}

impl Swarm {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (seeder, seeds) = (listener.local_addr().unwrap(), Arc::new(Seeds::new()));
        tokio::spawn(serve(
            listener,
            SeedState::new(seeds.clone()),
            Encryption::default(),
            std::future::pending(),
        ));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        Self { folder, seeder, seeds, picker: picker().await }
    }

    fn models(&self) -> PathBuf {
        self.folder.path().join("models")
    }

    /// Seeds `bytes` under `name`; returns the digest.
    async fn seed(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.path().join(format!("source-{}", self.seeds.stores().len()));
        fs::write(&path, bytes).unwrap();
        let store = open_complete(&path, Some(name), None, |_| ()).await.unwrap();
        let root = store.manifest().root().to_string();
        assert!(self.seeds.add(store));
        root
    }

    /// Pulls `wanted` to `to`.
    async fn pull(&self, wanted: &str, to: &Path, replace: bool) -> Result<PulledModel, SwarmError> {
        let spec = PullSpec {
            wanted: wanted.parse().unwrap(),
            to: to.to_owned(),
            peers: vec![Peer::seeder(&self.seeder.to_string()).unwrap()],
            token: None,
            layers: None,
            reuse: Vec::new(),
            limits: PullLimits::default(),
            seeding: None,
            replace,
            settings: Settings::default(),
        };
        pull(spec, &self.picker, watch::Sender::default()).await
    }
}

/// The header of a GGUF without tensors: only its name and its file type.
fn gguf(name: &str, file_type: u32) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend([0_u64.to_le_bytes(), 2_u64.to_le_bytes()].concat());
    file.extend([text("general.name"), 8_u32.to_le_bytes().to_vec(), text(name)].concat());
    file.extend([text("general.file_type"), 4_u32.to_le_bytes().to_vec()].concat());
    file.extend(file_type.to_le_bytes());
    file
}

#[tokio::test]
async fn two_quantizations_become_two_files() {
    let swarm = Swarm::start().await;
    let to = swarm.models();
    // Both seeders chose the same name, and it is not the model's own.
    let (small, large) = (gguf("Tiny Test", 2), gguf("Tiny Test", 7));
    let (small_root, large_root) = (swarm.seed("big", &small).await, swarm.seed("big", &large).await);
    for (root, bytes, name) in [(&small_root, &small, "Q4_0"), (&large_root, &large, "Q8_0")] {
        let pulled = swarm.pull(root, &to, false).await.unwrap();
        assert_eq!(pulled.path, to.join(format!("Tiny-Test-{name}-{}.gguf", &root[..12])));
        assert_eq!(&fs::read(&pulled.path).unwrap(), bytes);
        assert_eq!(pulled.manifest.name(), format!("Tiny-Test-{name}"), "the name of the peer is not kept");
        let again = swarm.pull(root, &to, false).await.unwrap();
        assert!(again.summary.is_none() && again.path == pulled.path, "the model is here already");
    }
    let error = swarm.pull("big", &to, false).await.err().unwrap();
    assert!(matches!(&error, SwarmError::Ambiguous { choices, .. } if choices.len() == 2), "{error}");
}

#[tokio::test]
async fn peer_does_not_choose_the_replaced_file() {
    let swarm = Swarm::start().await;
    let to = swarm.models();
    fs::write(to.join("precious.gguf"), b"mine").unwrap();
    let root = swarm.seed("precious", &[7; 5000]).await;
    let pulled = swarm.pull(&root, &to, true).await.unwrap();
    assert_eq!(pulled.path, to.join(format!("model-{}.gguf", &root[..12])));
    assert_eq!(fs::read(to.join("precious.gguf")).unwrap(), b"mine");
    // The derived name is not the user's either.
    fs::write(&pulled.path, b"mine too").unwrap();
    let error = swarm.pull(&root, &to, true).await.err().unwrap().to_string();
    assert!(error.contains("exists already"), "{error}");
    // The user names the file.
    fs::remove_file(&pulled.path).unwrap();
    let error = swarm.pull(&format!("precious@{root}"), &to, false).await.err().unwrap().to_string();
    assert!(error.contains("precious.gguf exists already"), "{error}");
    let replaced = swarm.pull(&format!("precious@{root}"), &to, true).await.unwrap();
    assert_eq!(fs::read(replaced.path).unwrap(), [7; 5000]);
}

/// A file with the right size and date is not the pinned one.
#[tokio::test]
async fn changed_file_does_not_count_as_pinned() {
    let swarm = Swarm::start().await;
    let path = swarm.models().join("m.gguf");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let root = swarm.seed("m", &bytes).await;
    swarm.pull(&root, &path, false).await.unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    // The change is in the middle, as `rsync -t --inplace` of a similar file leaves it.
    let mut changed = bytes.clone();
    changed[1_500_000] ^= 1;
    fs::write(&path, &changed).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let error = swarm.pull(&root, &path, false).await.err().unwrap().to_string();
    assert!(error.contains("exists already"), "{error}");
    let replaced = swarm.pull(&root, &path, true).await.unwrap();
    assert!(replaced.summary.is_some());
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// Files of earlier versions have other names, and a manifest without a stamp.
#[tokio::test]
async fn file_with_an_old_name_is_found_by_its_digest() {
    let swarm = Swarm::start().await;
    let to = swarm.models();
    let root = swarm.seed("name-of-a-peer", &[7; 5000]).await;
    let old = to.join("name-of-a-peer.gguf");
    fs::write(&old, [7; 5000]).unwrap();
    let manifest = swarm.seeds.store(root.parse().unwrap()).unwrap().manifest().to_json();
    fs::write(to.join("name-of-a-peer.gguf.manifest"), manifest).unwrap();
    for wanted in [root.clone(), format!("mine@{root}")] {
        let found = swarm.pull(&wanted, &to, false).await.unwrap();
        assert!(found.summary.is_none() && found.path == old, "{}", found.path.display());
    }
    // The bytes of another file do not match the manifest.
    fs::write(&old, [8; 5000]).unwrap();
    let pulled = swarm.pull(&root, &to, false).await.unwrap();
    assert!(pulled.summary.is_some() && pulled.path != old);
}

#[cfg(unix)]
#[tokio::test]
async fn dangling_link_is_refused_before_the_pull() {
    let swarm = Swarm::start().await;
    let root = swarm.seed("m", &[7; 5000]).await;
    let link = swarm.models().join("m.gguf");
    std::os::unix::fs::symlink("/nowhere/x.gguf", &link).unwrap();
    let error = swarm.pull(&root, &link, false).await.err().unwrap().to_string();
    assert!(error.contains("m.gguf is a link to a missing file"), "{error}");
    assert_eq!(fs::read_dir(swarm.models()).unwrap().count(), 1, "nothing was fetched");
}

#[tokio::test]
async fn pinned_picker_with_another_digest_is_refused() {
    let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
    let library = Library::new(engine, KINDS, Vec::new());
    let wrong = library.load::<PiecePicker>("swarm", Some(&"0".repeat(64))).await.err().unwrap();
    assert!(matches!(wrong, PluginError::DigestMismatch { .. }), "{wrong}");
}

#[tokio::test]
async fn built_in_picker_picks_rare_pieces_that_the_peer_has() {
    let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
    let plugin = Library::new(engine, KINDS, Vec::new()).load::<PiecePicker>("swarm", None).await.unwrap();
    assert_eq!(plugin.current().label(), "swarm@0.1.0");
    let mut picker = plugin.current().for_pull(&Settings::default());
    let task = Task { pieces: vec![1 << 20; 4], wanted: vec![0, 1, 2, 3], urgent: 0, seed: 1 };
    picker.start(&task).await.unwrap();
    let (complete_peer, partial_peer) = (PeerId(0), PeerId(1));
    let events = vec![
        Event::Joined(complete_peer),
        Event::Joined(partial_peer),
        Event::Have(complete_peer, vec![0, 1, 2, 3]),
        Event::Have(partial_peer, vec![0, 1, 2]),
    ];
    let slots = [Slot { peer: complete_peer, free: 1 }, Slot { peer: partial_peer, free: 1 }];
    let picked = picker.pick(Duration::ZERO, events, &slots).await.unwrap();
    assert!(
        picked.contains(&Fetch { peer: complete_peer, piece: 3 }),
        "only this peer has piece 3: {picked:?}"
    );
    let second_fetch = picked.iter().find(|fetch| fetch.peer == partial_peer).unwrap();
    assert!(second_fetch.piece < 3, "{picked:?}");
    let elapsed = Duration::from_millis(5);
    let result = FetchResult { peer: complete_peer, piece: 3, bytes: 1 << 20, elapsed, fault: None };
    let slots = [Slot { peer: complete_peer, free: 1 }];
    let next = picker.pick(elapsed, vec![Event::FetchEnded(result)], &slots).await.unwrap();
    assert!(next.iter().all(|fetch| fetch.piece < 3 && fetch.peer == complete_peer), "{next:?}");
    assert!(plugin.current().identity().counts().calls() >= 3);
}
