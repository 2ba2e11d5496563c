//! The built-in plugins, loaded through the library that scripts use.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_modes::{
    Assignment, KINDS, Layer, Machine, ModeDriver, PlacementPolicy, Plan, Refusal, Shape, Shortage,
};
use tightwad_sandbox::{Library, Limits, Plugin, PluginEngine, PluginError, ReloadablePlugin};

fn dist(name: &str) -> String {
    format!("{}/../../plugins/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

fn library(folder: Option<PathBuf>) -> Library {
    let engine = PluginEngine::new(None, Limits::default()).unwrap();
    Library::new(Arc::new(engine), KINDS, folder.into_iter().collect())
}

async fn placement(folder: Option<PathBuf>, name: &str) -> Result<Arc<PlacementPolicy>, PluginError> {
    let policy: Arc<ReloadablePlugin<PlacementPolicy>> = library(folder).load(name, None).await?;
    Ok(policy.current())
}

fn machine(memory: u64, memory_bandwidth: u64, is_host: bool) -> Machine {
    let name = if is_host { "host" } else { "worker" }.to_owned();
    let (link_bandwidth, round_trip_ns, max_layers) = (100_000_000, 200_000, u32::MAX);
    Machine { name, memory, memory_bandwidth, link_bandwidth, round_trip_ns, is_host, max_layers }
}

fn shape(layers: usize) -> Shape {
    let layers = vec![Layer { weights: 90_000_000, cache: 10_000_000 }; layers];
    let (logits, activations) = (600_000, 16_000);
    Shape { layers, output: 100_000_000, logits, activations, compute_buffer: 0, output_buffer: 0 }
}

#[tokio::test]
async fn built_in_policy_places_a_model_or_reports_the_missing_memory() {
    let policy = placement(None, "pooling").await.unwrap();
    assert_eq!(policy.label(), "pooling@0.1.0");
    assert_eq!(policy.sha256().len(), 64);
    let machines = [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
    let plan = policy.place(&shape(8), &machines, None).await.unwrap().unwrap();
    // The host is faster, so it gets as many layers as it can hold.
    let expected = [Assignment { machine: 0, layers: 5 }, Assignment { machine: 1, layers: 3 }];
    assert_eq!(plan.assignments, expected);
    assert!(plan.output_on_host);
    // 550 MB at 9 GB/s, 270 MB at 4.5 GB/s, and the network.
    assert_eq!(plan.time_per_token_ns, 61_111_111 + 60_000_000 + 200_000 + 320_000);
    let refusal = policy.place(&shape(12), &machines, None).await.unwrap();
    assert_eq!(refusal, Err(Refusal::TooBig(Shortage { missing: 200_000_000, fits: 11 })));
    let refusal = policy.place(&shape(12), &[], None).await.unwrap();
    assert!(matches!(refusal, Err(Refusal::Other(text)) if text.contains("no machine")));
}

#[tokio::test]
async fn built_in_policy_keeps_a_slightly_slower_plan() {
    let policy = placement(None, "pooling").await.unwrap();
    let machines = [machine(600_000_000, 9_000_000_000, true), machine(500_000_000, 4_500_000_000, false)];
    let plan = |host_layers: u32| Plan {
        assignments: vec![
            Assignment { machine: 0, layers: host_layers },
            Assignment { machine: 1, layers: 8 - host_layers },
        ],
        output_on_host: true,
        time_per_token_ns: 1,
    };
    let kept_plan = policy.place(&shape(8), &machines, Some(&plan(4))).await.unwrap().unwrap();
    // 460 MB at 9 GB/s, 360 MB at 4.5 GB/s, and the network: 8 % slower than the best plan.
    let time_per_token_ns = 51_111_111 + 80_000_000 + 200_000 + 320_000;
    assert_eq!(kept_plan, Plan { time_per_token_ns, ..plan(4) });
    // 16 % slower than the best plan.
    let new_plan = policy.place(&shape(8), &machines, Some(&plan(3))).await.unwrap().unwrap();
    assert_eq!(new_plan.assignments, plan(5).assignments);
    // The output buffer is one byte too large for the host, so the output head moves to the worker.
    let shape = Shape { output_buffer: 1, ..shape(8) };
    let new_plan = policy.place(&shape, &machines, Some(&plan(5))).await.unwrap().unwrap();
    assert_eq!((new_plan.assignments, new_plan.output_on_host), (plan(6).assignments, false));
}

#[tokio::test]
async fn built_in_policy_places_many_layers_in_a_fraction_of_the_limit() {
    let policy = placement(None, &dist("pooling")).await.unwrap();
    let mut machines = vec![machine(800_000_000, 9_000_000_000, true)];
    machines.extend((1..=16).map(|at| machine(400_000_000 + at * 77_000_000, at * 1_000_000_000, false)));
    for layers in [80, 200] {
        let start = Instant::now();
        let placement = policy.place(&shape(layers), &machines, None).await.unwrap();
        let elapsed = start.elapsed();
        println!("{layers} layers: {elapsed:?}");
        assert_eq!(placement.is_ok(), layers == 80);
        assert!(elapsed < Duration::from_millis(200), "{layers} layers took {elapsed:?}");
    }
}

#[tokio::test]
async fn component_of_another_world_is_refused_with_the_missing_interface() {
    let error = placement(None, &dist("speculation")).await.err().unwrap().to_string();
    assert!(error.contains("does not export the interface `placement-policy`"), "{error}");
    let error = library(None).load::<ModeDriver>(&dist("pooling"), None).await.err().unwrap().to_string();
    assert!(error.contains("does not export the interface `mode`"), "{error}");
    let error = placement(None, "speculation").await.err().unwrap().to_string();
    assert!(error.contains("plugins of this kind are pooling"), "{error}");
}

#[tokio::test]
async fn file_in_the_plugins_folder_replaces_the_built_in_policy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pooling.wasm"), "this is text").unwrap();
    let error = placement(Some(folder.path().to_owned()), "pooling").await.err().unwrap();
    assert!(matches!(error, PluginError::NotComponent { .. }), "{error}");
}
