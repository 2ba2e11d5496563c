//! Delivers text to the client: a released prefix of a candidate, a correction after it, or the reviewer's own answer.

use std::time::Instant;

use tightwad_core::{
    BackendError, CommittedToken, Event, Outcome, Output, Report, ResumePoint, StepResult, decode_to_end,
    relay,
};

use crate::gate::review::{FinalVerdict, ReleasedPrefix, ReviewTally, ReviewTask};

/// The reason why the beginning of a candidate cannot be released.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    /// The candidate has fewer scored tokens, or the client already has these tokens or another candidate.
    #[error(
        "{tokens} tokens of candidate {candidate} cannot be released: they were not scored, or the client has them or another candidate"
    )]
    Tokens { candidate: usize, tokens: usize },
    /// The reviewer cannot continue a text, so it could not correct the remaining candidate.
    #[error("the reviewer cannot continue a text")]
    NoResume,
    /// The reviewer has no tokenizer.
    #[error("the reviewer has no tokenizer")]
    NoTokenizer,
    /// The reviewer cannot turn tokens into text.
    #[error(transparent)]
    Detokenize(#[from] BackendError),
    /// The text of the reviewer's tokens differs from the candidate's text.
    #[error("the text of the reviewer's tokens differs from the candidate's text")]
    TextDiffers,
}

/// Sends the first `tokens` tokens of a scored candidate to the client.
pub(crate) async fn release_prefix(
    task: &mut ReviewTask,
    index: usize,
    tokens: usize,
) -> Result<(), ReleaseError> {
    let candidate = &task.candidates[index];
    let extends = task.released.is_none_or(|prefix| prefix.candidate == index && prefix.tokens < tokens);
    if tokens == 0 || tokens > candidate.scores.len() || !extends {
        return Err(ReleaseError::Tokens { candidate: index, tokens });
    }
    if !can_resume(task) {
        return Err(ReleaseError::NoResume);
    }
    let tokenizer = task.spec.reviewer.as_target().and_then(|target| target.tokenizer());
    let tokenizer = tokenizer.ok_or(ReleaseError::NoTokenizer)?;
    let prefix: Vec<u32> = candidate.scores[..tokens].iter().map(|score| score.token).collect();
    let bytes = tokenizer.detokenize(&prefix).await?;
    if !candidate.text.as_bytes().starts_with(&bytes) {
        return Err(ReleaseError::TextDiffers);
    }
    // The first bytes of an incomplete character wait for the rest of it.
    let end = candidate.text.floor_char_boundary(bytes.len());
    let text = candidate.text[task.released.map_or(0, |prefix| prefix.bytes)..end].to_owned();
    if !text.is_empty() && task.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
        task.failure = Some(BackendError::Cancelled);
    }
    task.tally.released_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
    task.released = Some(ReleasedPrefix { candidate: index, tokens, bytes: end });
    Ok(())
}

/// Keeps the first `kept_tokens` tokens of a scored candidate, and lets the reviewer continue after them. Returns
/// false if the reviewer or the released prefix makes this impossible.
pub(crate) async fn correct(task: &mut ReviewTask, index: usize, kept_tokens: usize) -> bool {
    let scores = &task.candidates[index].scores;
    let extends =
        task.released.is_none_or(|prefix| prefix.candidate == index && prefix.tokens <= kept_tokens);
    if kept_tokens == 0 || kept_tokens > scores.len() || !extends || !can_resume(task) {
        return false;
    }
    let (start, scored) = (Instant::now(), scores.len());
    let prefix = scores[..kept_tokens].iter().map(|score| score.token).collect();
    let result = resume_after(task, prefix).await;
    task.tally.completion_time += start.elapsed();
    match task.record_reviewer_result(result) {
        Ok((outcome, generated)) => {
            task.tally.generated_tokens += generated;
            task.tally.kept_share = kept_tokens as f64 / scored as f64;
            task.set_outcome(outcome, FinalVerdict::Corrected, Some(index));
        }
        // The client can already have a part of the correction, and no other answer continues this text.
        Err(error) if task.reviewer_answers => task.failure = Some(error),
        Err(error) => {
            tracing::warn!(%error, "the reviewer could not correct a candidate");
            return task.is_over();
        }
    }
    true
}

/// Ends a task. If no verdict ended it, the reviewer answers itself, or continues after a released prefix.
///
/// # Errors
///
/// Returns the reviewer's error, or [`BackendError::Cancelled`] if the client disconnected.
pub(crate) async fn finish(mut task: ReviewTask) -> Result<(Outcome, ReviewTally), BackendError> {
    if !task.is_over() {
        reject(&mut task).await;
        task.pass_unreviewed().await;
    }
    match (task.failure, task.outcome) {
        (Some(failure), _) => Err(failure),
        (None, Some(outcome)) => Ok((outcome, task.tally)),
        (None, None) => Err(BackendError::failed(task.spec.reviewer.name(), "it returned no answer")),
    }
}

/// Lets the reviewer answer itself, or continue after a released prefix.
pub(crate) async fn reject(task: &mut ReviewTask) {
    if let Some(prefix) = task.released {
        // The client keeps a released prefix.
        if !correct(task, prefix.candidate, prefix.tokens).await && task.failure.is_none() {
            let message = "it cannot continue after the released beginning of a candidate";
            task.failure = Some(BackendError::failed(task.spec.reviewer.name(), message));
        }
        return;
    }
    let start = Instant::now();
    let (sink, mut started) = (task.sink.clone(), false);
    let on_event = |event: Event| {
        started = true;
        let sink = sink.clone();
        async move { sink.send(event).await.is_ok() }
    };
    let result = tokio::select! {
        result = relay(task.spec.reviewer.as_ref(), (*task.request).clone(), on_event) => result,
        () = task.sink.closed() => Err(BackendError::Cancelled),
    };
    task.reviewer_answers |= started;
    task.tally.completion_time += start.elapsed();
    match task.record_reviewer_result(result) {
        Ok(outcome) => {
            task.tally.generated_tokens += outcome.usage.completion_tokens;
            task.tally.scored_tokens += outcome.usage.prompt_tokens;
            task.set_outcome(outcome, FinalVerdict::Rejected, None);
        }
        Err(error) => task.failure = Some(error),
    }
}

fn can_resume(task: &ReviewTask) -> bool {
    task.spec.reviewer.as_target().is_some_and(|target| target.resumes())
}

/// Lets the reviewer generate after the kept tokens of a candidate. Returns the outcome and the number of generated
/// tokens.
async fn resume_after(task: &mut ReviewTask, kept_tokens: Vec<u32>) -> Result<(Outcome, u32), BackendError> {
    let reviewer = task.spec.reviewer.target()?;
    let prepared = reviewer.prepare(&task.request).await?;
    let (prompt, max_tokens) = (prepared.prompt, prepared.max_tokens);
    let resume = ResumePoint { prompt, output: kept_tokens.clone(), max_tokens };
    let opened = reviewer.open_target(&task.request, Some(&resume)).await?;
    let released_bytes = task.released.map_or(0, |prefix| prefix.bytes);
    let mut output = Output::new(&opened, task.sink.clone()).skip_bytes(released_bytes);
    let mut target = opened.session;
    task.reviewer_answers = true;
    let committed =
        kept_tokens.iter().map(|token| CommittedToken { token: *token, logprobs: None }).collect();
    output.commit(&StepResult { committed, ..StepResult::default() }, target.as_ref()).await?;
    if !output.is_finished() {
        decode_to_end(target.as_mut(), &mut output).await?;
    }
    let generated = output.tokens().len().saturating_sub(kept_tokens.len());
    let (finish_reason, usage) = output.finish();
    let outcome = Outcome { finish_reason, usage, report: Report::default() };
    Ok((outcome, u32::try_from(generated).unwrap_or(u32::MAX)))
}
