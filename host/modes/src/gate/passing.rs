//! What goes to the client: the beginning of a candidate before its review is over, a correction behind it, the end.

use std::time::Instant;

use tightwad_core::{
    BackendError, Committed, Event, Left, Outcome, Output, Report, Verified, decode_to_end, relay,
};

use crate::gate::review::{Ending, Given, ReviewTally, ReviewTask};

/// Why the beginning of a candidate cannot go to the client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    /// The candidate does not have these tokens, or the client has them or another candidate's.
    #[error("{tokens} tokens of candidate {candidate} cannot be passed on")]
    Tokens { candidate: usize, tokens: usize },
    /// The reviewer could not correct the rest.
    #[error("the reviewer cannot go on from the middle")]
    NoResume,
    /// The reviewer has no tokenizer.
    #[error("the reviewer has no vocabulary of its own")]
    NoVocabulary,
    /// The reviewer cannot turn tokens into text.
    #[error(transparent)]
    Detokenize(#[from] BackendError),
    /// The reviewer's tokens are not the candidate's text.
    #[error("the reviewer's tokens are other words")]
    OtherWords,
}

/// The first `tokens` tokens of a scored candidate go to the client now.
pub(crate) async fn pass(task: &mut ReviewTask, candidate: usize, tokens: usize) -> Result<(), PassError> {
    let written = &task.written[candidate];
    let more = task.given.is_none_or(|given| given.candidate == candidate && given.tokens < tokens);
    if tokens == 0 || tokens > written.scored.len() || !more {
        return Err(PassError::Tokens { candidate, tokens });
    }
    if !can_go_on(task) {
        return Err(PassError::NoResume);
    }
    let tokenizer = task.spec.reviewer.as_target().and_then(|target| target.tokenizer());
    let tokenizer = tokenizer.ok_or(PassError::NoVocabulary)?;
    let first: Vec<u32> = written.scored[..tokens].iter().map(|scored| scored.token).collect();
    let bytes = tokenizer.detokenize(&first).await?;
    if !written.text.as_bytes().starts_with(&bytes) {
        return Err(PassError::OtherWords);
    }
    // Half a character waits for its other half.
    let end = written.text.floor_char_boundary(bytes.len());
    let text = written.text[task.given.map_or(0, |given| given.bytes)..end].to_owned();
    if !text.is_empty() && task.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
        task.failure = Some(BackendError::Cancelled);
    }
    task.tally.passed = u32::try_from(tokens).unwrap_or(u32::MAX);
    task.given = Some(Given { candidate, tokens, bytes: end });
    Ok(())
}

/// The first `keep` tokens of a scored candidate stay, and the reviewer goes on; false where it cannot.
pub(crate) async fn correct(task: &mut ReviewTask, candidate: usize, keep: usize) -> bool {
    let scored = &task.written[candidate].scored;
    let behind = task.given.is_none_or(|given| given.candidate == candidate && given.tokens <= keep);
    if keep == 0 || keep > scored.len() || !behind || !can_go_on(task) {
        return false;
    }
    let (start, all) = (Instant::now(), scored.len());
    let kept = scored[..keep].iter().map(|scored| scored.token).collect();
    let done = go_on(task, kept).await;
    task.tally.took[2] += start.elapsed();
    match task.reviewed(done) {
        Ok((outcome, decoded)) => {
            task.tally.decoded += decoded;
            task.tally.kept = keep as f64 / all as f64;
            task.end(outcome, Ending::Corrected, Some(candidate));
        }
        // Nothing else can follow what the client may have.
        Err(error) if task.begun => task.failure = Some(error),
        Err(error) => {
            tracing::warn!(%error, "a correction was not possible");
            return task.is_over();
        }
    }
    true
}

/// What came of it: the reviewer answers itself where nothing was passed on yet.
///
/// # Errors
///
/// The reviewer's, and [`BackendError::Cancelled`] when the client has left.
pub(crate) async fn settle(mut task: ReviewTask) -> Result<(Outcome, ReviewTally), BackendError> {
    if !task.is_over() {
        rewrite(&mut task).await;
        task.pass_unreviewed().await;
    }
    match (task.failure, task.outcome) {
        (Some(failure), _) => Err(failure),
        (None, Some(outcome)) => Ok((outcome, task.tally)),
        (None, None) => Err(BackendError::failed(task.spec.reviewer.name(), "it gave no answer")),
    }
}

/// The reviewer answers itself, or goes on behind what the client has.
pub(crate) async fn rewrite(task: &mut ReviewTask) {
    if let Some(given) = task.given {
        // The client has a beginning that cannot be taken back.
        if !correct(task, given.candidate, given.tokens).await && task.failure.is_none() {
            let why = "it cannot go on behind what was passed on";
            task.failure = Some(BackendError::failed(task.spec.reviewer.name(), why));
        }
        return;
    }
    let start = Instant::now();
    let (sink, mut begun) = (task.sink.clone(), false);
    let each = |event: Event| {
        begun = true;
        let sink = sink.clone();
        async move { sink.send(event).await.is_ok() }
    };
    let done = tokio::select! {
        done = relay(task.spec.reviewer.as_ref(), (*task.request).clone(), each) => done,
        () = task.sink.closed() => Err(BackendError::Cancelled),
    };
    task.begun |= begun;
    task.tally.took[2] += start.elapsed();
    match task.reviewed(done) {
        Ok(outcome) => {
            task.tally.decoded += outcome.usage.completion_tokens;
            task.tally.read += outcome.usage.prompt_tokens;
            task.end(outcome, Ending::Rejected, None);
        }
        Err(error) => task.failure = Some(error),
    }
}

fn can_go_on(task: &ReviewTask) -> bool {
    task.spec.reviewer.as_target().is_some_and(|target| target.resumes() && target.verifies())
}

/// Generates behind tokens of a candidate; how many came after them.
async fn go_on(task: &mut ReviewTask, kept: Vec<u32>) -> Result<(Outcome, u32), BackendError> {
    let reviewer = task.spec.reviewer.target()?;
    let read = reviewer.read(&task.request).await?;
    let left = Left { prompt: read.prompt, output: kept.clone(), max_tokens: read.max_tokens };
    let opened = reviewer.open_target(&task.request, Some(&left)).await?;
    let given = task.given.map_or(0, |given| given.bytes);
    let mut output = Output::new(&opened, task.sink.clone()).behind(given);
    let mut target = opened.session;
    task.begun = true;
    let committed = kept.iter().map(|token| Committed { token: *token, logprobs: None }).collect();
    output.commit(&Verified { committed, ..Verified::default() }, target.as_ref()).await?;
    if !output.is_over() {
        decode_to_end(target.as_mut(), &mut output).await?;
    }
    let decoded = output.tokens().len().saturating_sub(kept.len());
    let (finish, usage) = output.end();
    let outcome = Outcome { finish, usage, report: Report::default() };
    Ok((outcome, u32::try_from(decoded).unwrap_or(u32::MAX)))
}
