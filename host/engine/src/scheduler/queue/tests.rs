use std::path::Path;

use tightwad_core::{Sampling, SamplingSpec, StepResult, TokenId};
use tightwad_zoo::{Kind, Zoo};
use tokio::sync::mpsc;

use crate::scheduler::queue::*;
use crate::sizing::Sizing;

/// Runs `test` with a zoo model and its queue, on the test's own thread.
fn with_queue(kind: Kind, test: impl FnOnce(Sequences, BatchContext<'_>)) {
    crate::runtime::select_row_invariant_kernels();
    let models = std::env::var_os("TIGHTWAD_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"), Into::into);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/zoo");
    let path = Zoo::new(&models.join("smollm2-135m-instruct.gguf"), &folder).model(kind).unwrap();
    let weights = Weights::load(&path, 0).unwrap();
    let config = EngineConfig { context: 256, slots: 3, threads: 1, ..EngineConfig::default() };
    let context =
        BatchContext::new(&weights, &config, Sizing::for_model(&weights, &config).rollback).unwrap();
    test(Sequences::new(weights.clone(), &config, Arc::default(), 0.0), context);
}

/// Opens sequence `id` and starts a decode.
fn decode(
    sequences: &mut Sequences,
    context: &mut BatchContext<'_>,
    id: u64,
) -> mpsc::UnboundedReceiver<Result<StepResult, SessionError>> {
    let params = SessionParams {
        prompt: (0..20).map(|place| 400 + 31 * place + id as TokenId).collect(),
        output: Vec::new(),
        sampling: Sampling::new(SamplingSpec { temperature: 0.0, ..SamplingSpec::default() }).unwrap(),
        constraint: None,
        max_tokens: 40,
        prefill: false,
    };
    let (reply, _answer) = oneshot::channel();
    sequences.handle_command(Command::Open { id, params: Box::new(params), reply }, context);
    sequences.admit(context);
    let (steps, stream) = mpsc::unbounded_channel();
    let work = Work::Decode { remaining: 40, steps };
    sequences.handle_command(Command::Work { id, work, sent_at: Instant::now() }, context);
    stream
}

/// The tokens received so far, and the error that ended the stream.
fn received_tokens(
    stream: &mut mpsc::UnboundedReceiver<Result<StepResult, SessionError>>,
) -> (Vec<TokenId>, Option<SessionError>) {
    let (mut tokens, mut error) = (Vec::new(), None);
    while let Ok(step) = stream.try_recv() {
        match step {
            Ok(step) => tokens.extend(step.committed.iter().map(|committed| committed.token)),
            Err(failed) => error = Some(failed),
        }
    }
    (tokens, error)
}

#[test]
fn failed_pass_fails_only_the_faulty_sequence() {
    for kind in [Kind::Qwen3Moe, Kind::Lfm2, Kind::Mamba2] {
        let mut truths = Vec::new();
        with_queue(kind, |mut sequences, mut context| {
            for id in [1, 2, 3] {
                let mut stream = decode(&mut sequences, &mut context, id);
                while sequences.run_pass(&mut context) {}
                truths.push(received_tokens(&mut stream).0);
            }
        });
        with_queue(kind, |mut sequences, mut context| {
            let mut streams = [1, 2, 3].map(|id| decode(&mut sequences, &mut context, id));
            for _ in 0..10 {
                sequences.run_pass(&mut context);
            }
            // A token outside the vocabulary makes llama.cpp reject the whole batch.
            let faulty = sequences.running.get_mut(&2).unwrap();
            faulty.tokens.push(context.vocabulary);
            while sequences.run_pass(&mut context) {}
            let [first, second, third] = &mut streams;
            assert_eq!(received_tokens(first).0, truths[0], "{kind:?}");
            assert_eq!(received_tokens(third).0, truths[2], "{kind:?}");
            let (tokens, error) = received_tokens(second);
            assert!(truths[1].starts_with(&tokens) && !tokens.is_empty(), "{kind:?}");
            assert!(matches!(error, Some(SessionError::Decode(_))), "{kind:?}: {error:?}");
            // The slot of the failed sequence is empty and usable.
            for id in [1, 2, 3] {
                sequences.handle_command(Command::Close { id }, &mut context);
            }
            let mut next = decode(&mut sequences, &mut context, 2);
            while sequences.run_pass(&mut context) {}
            let (tokens, error) = received_tokens(&mut next);
            assert!(error.is_none(), "{kind:?}: {error:?}");
            assert_eq!(tokens, truths[1], "{kind:?}");
        });
    }
}
