use std::path::Path;

use tightwad_core::{Sampling, SamplingSpec, Verified};
use tightwad_zoo::{Kind, Zoo};
use tokio::sync::mpsc;

use crate::scheduler::queue::*;

/// A model of the zoo with the queue of its engine, on the test's own thread.
fn queue(kind: Kind, test: impl FnOnce(Sequences, Context<'_>)) {
    crate::runtime::prepare();
    let models = std::env::var_os("TIGHTWAD_MODELS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"), Into::into);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tmp/zoo");
    let path = Zoo::new(&models.join("smollm2-135m-instruct.gguf"), &folder).model(kind).unwrap();
    let weights = Weights::load(&path, 0).unwrap();
    let config = EngineConfig { context: 256, slots: 3, threads: 1, ..EngineConfig::default() };
    let context = Context::new(&weights, &config).unwrap();
    test(Sequences::new(weights.clone(), &config, Arc::default(), 0.0), context);
}

/// Opens sequence `id` and lets it decode.
fn decode(
    sequences: &mut Sequences,
    context: &mut Context<'_>,
    id: u64,
) -> mpsc::UnboundedReceiver<Result<Verified, SessionError>> {
    let open = OpenSession {
        prompt: (0..20).map(|place| 400 + 31 * place + id as TokenId).collect(),
        output: Vec::new(),
        sampling: Sampling::new(SamplingSpec { temperature: 0.0, ..SamplingSpec::default() }).unwrap(),
        constraint: None,
        max_tokens: 40,
        prefill: false,
    };
    let (reply, _answer) = oneshot::channel();
    sequences.accept(Command::Open { id, open: Box::new(open), reply }, context);
    sequences.admit(context);
    let (steps, stream) = mpsc::unbounded_channel();
    let work = Work::Decode { left: 40, steps };
    sequences.accept(Command::Work { id, work, sent: Instant::now() }, context);
    stream
}

/// What came so far, and the error that ended it.
fn received(
    stream: &mut mpsc::UnboundedReceiver<Result<Verified, SessionError>>,
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
fn a_pass_that_fails_fails_only_the_sequence_at_fault() {
    for kind in [Kind::Qwen3Moe, Kind::Lfm2, Kind::Mamba2] {
        let mut truths = Vec::new();
        queue(kind, |mut sequences, mut context| {
            for id in [1, 2, 3] {
                let mut stream = decode(&mut sequences, &mut context, id);
                while sequences.tick(&mut context) {}
                truths.push(received(&mut stream).0);
            }
        });
        queue(kind, |mut sequences, mut context| {
            let mut streams = [1, 2, 3].map(|id| decode(&mut sequences, &mut context, id));
            for _ in 0..10 {
                sequences.tick(&mut context);
            }
            // Its next row does not follow the last one: llama.cpp refuses the whole batch.
            let faulty = sequences.running.get_mut(&2).unwrap();
            faulty.tokens.extend([7, 7]);
            faulty.evaluated += 2;
            while sequences.tick(&mut context) {}
            let [first, second, third] = &mut streams;
            assert_eq!(received(first).0, truths[0], "{kind:?}");
            assert_eq!(received(third).0, truths[2], "{kind:?}");
            let (tokens, error) = received(second);
            assert!(truths[1].starts_with(&tokens) && !tokens.is_empty(), "{kind:?}");
            assert!(matches!(error, Some(SessionError::Decode(_))), "{kind:?}: {error:?}");
            // Its slot is empty, and good for another request.
            for id in [1, 2, 3] {
                sequences.accept(Command::Close { id }, &mut context);
            }
            let mut again = decode(&mut sequences, &mut context, 2);
            while sequences.tick(&mut context) {}
            let (tokens, error) = received(&mut again);
            assert!(error.is_none(), "{kind:?}: {error:?}");
            assert_eq!(tokens, truths[1], "{kind:?}");
        });
    }
}
