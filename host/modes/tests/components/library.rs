//! The built-in plugins, through the library that scripts use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_modes::{KINDS, Layer, Machine, PlacementPlugin, Plan, Plugin, Refusal, Shape, Share, Shortage};
use tightwad_sandbox::{Library, Limits, Loaded, PluginEngine, PluginError, Slot};

fn dist(name: &str) -> String {
    format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

fn library(folder: Option<PathBuf>) -> Library {
    let engine = PluginEngine::new(None, Limits::default()).unwrap();
    Library::new(Arc::new(engine), KINDS, folder.into_iter().collect())
}

async fn placement(folder: Option<PathBuf>, name: &str) -> Result<Arc<PlacementPlugin>, PluginError> {
    library(folder).load(name, None).await.map(|slot: Arc<Slot<PlacementPlugin>>| slot.current())
}

fn machine(memory: u64, speed: u64, here: bool) -> Machine {
    let name = if here { "here" } else { "worker" }.to_owned();
    let (bandwidth, round_trip, max_layers) = (100_000_000, 200_000, u32::MAX);
    Machine { name, memory, speed, bandwidth, round_trip, here, max_layers }
}

fn shape(layers: usize) -> Shape {
    let layers = vec![Layer { weights: 90_000_000, cache: 10_000_000 }; layers];
    let (logits, activations) = (600_000, 16_000);
    Shape { layers, output: 100_000_000, logits, activations, scratch: 0, head_scratch: 0 }
}

#[tokio::test]
async fn the_built_in_policy_places_a_model_and_says_what_is_missing() {
    let policy = placement(None, "pooling").await.unwrap();
    assert_eq!(policy.label(), "pooling@0.1.0");
    assert_eq!(policy.sha256().len(), 64);
    let machines = [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
    let plan = policy.place(&shape(8), &machines, None).await.unwrap().unwrap();
    // The host is faster: as much as it holds.
    assert_eq!(plan.shares, [Share { machine: 0, layers: 5 }, Share { machine: 1, layers: 3 }]);
    assert!(plan.output_here);
    // 550 MB at 9 GB/s, 270 MB at 4.5 GB/s, and the network.
    assert_eq!(plan.token, 61_111_111 + 60_000_000 + 200_000 + 320_000);
    let refusal = policy.place(&shape(12), &machines, None).await.unwrap();
    assert_eq!(refusal, Err(Refusal::TooBig(Shortage { missing: 200_000_000, fits: 11 })));
    let refusal = policy.place(&shape(12), &[], None).await.unwrap();
    assert!(matches!(refusal, Err(Refusal::Other(text)) if text.contains("no machine")));
}

#[tokio::test]
async fn the_built_in_policy_stays_with_a_plan_that_is_nearly_as_good() {
    let policy = placement(None, "pooling").await.unwrap();
    let machines = [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
    let plan = |here: u32| Plan {
        shares: vec![Share { machine: 0, layers: here }, Share { machine: 1, layers: 8 - here }],
        output_here: true,
        token: 1,
    };
    let kept = policy.place(&shape(8), &machines, Some(&plan(4))).await.unwrap().unwrap();
    // 460 MB at 9 GB/s, 360 MB at 4.5 GB/s, and the network: 8 % more than the best plan.
    assert_eq!(kept, Plan { token: 51_111_111 + 80_000_000 + 200_000 + 320_000, ..plan(4) });
    // 16 % more.
    let left = policy.place(&shape(8), &machines, Some(&plan(3))).await.unwrap().unwrap();
    assert_eq!(left.shares, plan(5).shares);
    // A byte of logits more than the host has room for: the head moves.
    let shape = Shape { head_scratch: 1, ..shape(8) };
    let left = policy.place(&shape, &machines, Some(&plan(5))).await.unwrap().unwrap();
    assert_eq!((left.shares, left.output_here), (plan(6).shares, false));
}

#[tokio::test]
async fn many_layers_on_many_machines_stay_far_from_the_limits() {
    let policy = placement(None, &dist("pooling")).await.unwrap();
    let mut machines = vec![machine(800_000_000, 9_000_000_000, true)];
    machines.extend((1..=16).map(|at| machine(400_000_000 + at * 77_000_000, at * 1_000_000_000, false)));
    for layers in [80, 200] {
        let start = Instant::now();
        let answer = policy.place(&shape(layers), &machines, None).await.unwrap();
        let took = start.elapsed();
        println!("{layers} layers: {took:?}");
        assert_eq!(answer.is_ok(), layers == 80);
        assert!(took < Duration::from_millis(200), "{layers} layers took {took:?}");
    }
}

#[tokio::test]
async fn a_component_of_another_world_is_refused_by_what_it_lacks() {
    let error = placement(None, &dist("speculation")).await.err().unwrap().to_string();
    assert!(error.contains("does not export the interface `pooling`"), "{error}");
    let error = library(None).load::<Plugin>(&dist("pooling"), None).await.err().unwrap().to_string();
    assert!(error.contains("does not export the interface `mode`"), "{error}");
    let error = placement(None, "speculation").await.err().unwrap().to_string();
    assert!(error.contains("built in are pooling"), "{error}");
}

#[tokio::test]
async fn a_file_in_the_plugins_folder_replaces_the_built_in_policy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pooling.wasm"), "this is text").unwrap();
    let error = placement(Some(folder.path().to_owned()), "pooling").await.err().unwrap();
    assert!(matches!(error, PluginError::NotComponent { .. }), "{error}");
}
