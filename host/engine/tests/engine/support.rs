//! Engines with real models: SmolLM2, which `cargo xtask models` downloads, and the models of the zoo.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use tightwad_core::{Sampling, SamplingSpec, TokenId};
use tightwad_engine::{Engine, EngineConfig, SessionParams, Weights, on_text_thread};
use tightwad_zoo::{Kind, Zoo};

pub(crate) fn smollm2() -> PathBuf {
    let folder = std::env::var_os("TIGHTWAD_MODELS")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models")), PathBuf::from);
    folder.join("smollm2-135m-instruct.gguf")
}

/// A model of the zoo.
pub(crate) fn zoo_model(kind: Kind) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zoo");
    Zoo::new(&smollm2(), &folder).model(kind).expect("run `cargo xtask models` first")
}

fn prepare() {
    static PREPARED: OnceLock<()> = OnceLock::new();
    PREPARED.get_or_init(tightwad_engine::select_row_invariant_kernels);
}

pub(crate) fn load(config: EngineConfig) -> Engine {
    load_from(&smollm2(), config)
}

pub(crate) fn load_from(path: &Path, config: EngineConfig) -> Engine {
    prepare();
    Engine::load(path, config).expect("run `cargo xtask models` first")
}

/// An engine with a model of the zoo. The tests share the loaded weights.
pub(crate) fn load_zoo(kind: Kind, config: EngineConfig) -> Engine {
    static WEIGHTS: Mutex<BTreeMap<String, Arc<Weights>>> = Mutex::new(BTreeMap::new());
    prepare();
    let mut loaded = WEIGHTS.lock().unwrap();
    let weights =
        loaded.entry(kind.name()).or_insert_with(|| Weights::load(&zoo_model(kind), 0).unwrap()).clone();
    drop(loaded);
    Engine::start(weights, config).unwrap()
}

pub(crate) fn load_vocabulary(path: &Path) -> Arc<Weights> {
    prepare();
    Weights::load_vocabulary(path).unwrap()
}

pub(crate) fn sampling(temperature: f32) -> Sampling {
    let spec = SamplingSpec { temperature, top_p: 0.95, seed: 7, ..SamplingSpec::default() };
    Sampling::new(spec).unwrap()
}

/// The parameters of a session for the tokens of `text`.
pub(crate) async fn params(engine: &Engine, text: &str, temperature: f32, max_tokens: u32) -> SessionParams {
    let (weights, context, text) = (engine.weights().clone(), engine.context(), text.to_owned());
    let prompt = on_text_thread(move |thread| weights.tokenize(thread, &text, true, context)).await;
    params_for(prompt.unwrap().unwrap(), temperature, max_tokens)
}

/// The parameters of a session for `prompt`.
pub(crate) fn params_for(prompt: Vec<TokenId>, temperature: f32, max_tokens: u32) -> SessionParams {
    SessionParams {
        prompt,
        output: Vec::new(),
        sampling: sampling(temperature),
        constraint: None,
        max_tokens,
        prefill: true,
    }
}

pub(crate) async fn generate(engine: &Engine, params: SessionParams) -> Vec<TokenId> {
    let max_tokens = params.max_tokens;
    let mut session = engine.open(params).await.unwrap();
    let mut steps = session.decode(max_tokens).unwrap();
    let mut tokens = Vec::new();
    while let Some(step) = steps.recv().await {
        tokens.extend(step.unwrap().committed.iter().map(|committed| committed.token));
    }
    tokens
}
