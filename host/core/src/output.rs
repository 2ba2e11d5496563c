//! Turns committed tokens into the client's text.
//!
//! Invariant: `pending` holds the committed bytes that were not sent. Bytes stay there while they may become a stop
//! string or belong to an incomplete character.

use std::sync::Arc;

use crate::backend::{Sink, TargetSource};
use crate::error::BackendError;
use crate::event::{Event, Outcome, Report, TextLogprobs, Usage};
use crate::request::Request;
use crate::session::{OpenedTarget, Target};
use crate::stop::StopMatcher;
use crate::tokens::{CommittedToken, FinishReason, StepResult, TokenId};
use crate::usage_meter::UsageMeter;

/// Streams the text of one request's committed tokens: complete UTF-8 characters, without any part of a stop string.
pub struct Output {
    sink: Sink,
    stop: StopMatcher,
    max_tokens: u32,
    usage: Usage,
    meter: Arc<UsageMeter>,
    tokens: Vec<TokenId>,
    pending: Vec<u8>,
    /// The log-probabilities of tokens whose text was not sent completely, each with the offset of its token in
    /// `pending`.
    pending_logprobs: Vec<(usize, TextLogprobs)>,
    finish_reason: Option<FinishReason>,
    /// The number of bytes that the client already has. The output sends the text after them.
    bytes_to_skip: usize,
}

impl Output {
    /// The output of the request that `opened` answers.
    #[must_use]
    pub fn new(opened: &OpenedTarget, sink: Sink) -> Self {
        let prepared = &opened.prepared;
        let usage = Usage {
            prompt_tokens: u32::try_from(prepared.prompt.len()).unwrap_or(u32::MAX),
            completion_tokens: 0,
            cached_tokens: opened.cached_tokens,
        };
        let meter = prepared.request.meter.clone();
        meter.add_prompt(usage.prompt_tokens);
        Self {
            sink,
            meter,
            stop: StopMatcher::new(&prepared.request.stop),
            max_tokens: prepared.max_tokens,
            usage,
            tokens: Vec::new(),
            pending: Vec::new(),
            pending_logprobs: Vec::new(),
            finish_reason: None,
            bytes_to_skip: 0,
        }
    }

    /// Skips the first `bytes` of the text, because the client already has them.
    #[must_use]
    pub fn skip_bytes(mut self, bytes: usize) -> Self {
        self.bytes_to_skip = bytes;
        self
    }

    /// Streams the text of the tokens that `step` committed. Returns true when the request is finished.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Cancelled`] if the client has disconnected.
    pub async fn commit(&mut self, step: &StepResult, target: &dyn Target) -> Result<bool, BackendError> {
        for committed in &step.committed {
            if self.finish_reason.is_some() {
                break;
            }
            self.push(committed, target);
        }
        if self.finish_reason.is_none() {
            self.finish_reason = step.finish_reason;
        }
        let safe = if self.finish_reason.is_some() { self.pending.len() } else { self.safe_length() };
        self.send(safe).await?;
        Ok(self.finish_reason.is_some())
    }

    /// The tokens committed so far.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// The number of tokens that may still be committed.
    #[must_use]
    pub fn remaining_tokens(&self) -> u32 {
        if self.is_finished() { 0 } else { self.max_tokens.saturating_sub(self.usage.completion_tokens) }
    }

    /// True after the end of the turn, a stop string or the last allowed token.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Completes when the client has disconnected.
    pub async fn client_disconnected(&self) {
        self.sink.closed().await;
    }

    /// The reason why the request ended, and its token counts.
    #[must_use]
    pub fn finish(self) -> (FinishReason, Usage) {
        (self.finish_reason.unwrap_or(FinishReason::Length), self.usage)
    }

    fn push(&mut self, committed: &CommittedToken, target: &dyn Target) {
        let bytes = target.bytes(committed.token);
        let start = self.pending.len();
        self.tokens.push(committed.token);
        self.usage.completion_tokens += 1;
        self.meter.add_token();
        if let Some(logprobs) = &committed.logprobs {
            let top = logprobs.top.iter().map(|(token, value)| (target.bytes(*token), *value)).collect();
            let entry = TextLogprobs { bytes: bytes.clone(), logprob: logprobs.logprob, top };
            self.pending_logprobs.push((start, entry));
        }
        if let Some(stop) = self.append(&bytes) {
            self.pending.truncate(stop);
            self.pending_logprobs.retain(|(start, _)| *start < stop);
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.usage.completion_tokens >= self.max_tokens {
            self.finish_reason = Some(FinishReason::Length);
        }
    }

    /// Appends `bytes` to `pending`. Returns the offset of the first stop string to be complete, and ends there.
    fn append(&mut self, bytes: &[u8]) -> Option<usize> {
        for byte in bytes {
            self.pending.push(*byte);
            if let Some(length) = self.stop.push(*byte) {
                return Some(self.pending.len() - length);
            }
        }
        None
    }

    /// The number of pending bytes that cannot belong to a stop string or to an incomplete character.
    fn safe_length(&self) -> usize {
        let safe = self.pending.len() - self.stop.partial_bytes();
        safe - incomplete_tail(&self.pending[..safe])
    }

    async fn send(&mut self, length: usize) -> Result<(), BackendError> {
        let skipped = self.bytes_to_skip.min(length);
        self.bytes_to_skip -= skipped;
        let text = String::from_utf8_lossy(&self.pending[skipped..length]).into_owned();
        self.pending.drain(..length);
        let begun = |(start, _): &&(usize, TextLogprobs)| self.finish_reason.is_some() || *start < length;
        let ready = self.pending_logprobs.iter().take_while(begun).count();
        let logprobs: Vec<TextLogprobs> =
            self.pending_logprobs.drain(..ready).map(|(_, logprobs)| logprobs).collect();
        for (start, _) in &mut self.pending_logprobs {
            *start -= length.min(*start);
        }
        if text.is_empty() && logprobs.is_empty() {
            return if self.sink.is_closed() { Err(BackendError::Cancelled) } else { Ok(()) };
        }
        self.sink.send(Event { text, logprobs }).await.map_err(|_| BackendError::Cancelled)
    }
}

/// Answers `request` by decoding on `target`, without drafts. Every target can decode.
///
/// # Errors
///
/// Returns the target's error, or [`BackendError::Cancelled`] if the client has disconnected.
pub async fn generate_by_decoding(
    target: &dyn TargetSource,
    request: Request,
    sink: Sink,
) -> Result<Outcome, BackendError> {
    let request = Arc::new(request);
    let opened = tokio::select! {
        opened = target.open_target(&request, None) => opened?,
        () = sink.closed() => return Err(BackendError::Cancelled),
    };
    let mut output = Output::new(&opened, sink);
    let mut session = opened.session;
    let ties = decode_to_end(session.as_mut(), &mut output).await?;
    let (finish_reason, usage) = output.finish();
    let exact = session.is_exact();
    Ok(Outcome {
        finish_reason,
        usage,
        report: Report { mode: "plain".to_owned(), exact, ties, ..Report::default() },
    })
}

/// Decodes until `output` is finished. Returns the number of ties that the one-token path decided again.
///
/// # Errors
///
/// Returns the target's error, or [`BackendError::Cancelled`] if the client has disconnected.
pub async fn decode_to_end(target: &mut dyn Target, output: &mut Output) -> Result<u32, BackendError> {
    let mut ties = 0;
    while !output.is_finished() {
        target.decode(output.remaining_tokens()).await?;
        let mut progressed = false;
        while let Some(step) = next_step(target, output).await? {
            progressed = true;
            ties = step.ties.saturating_add(ties);
            if output.commit(&step, &*target).await? {
                break;
            }
        }
        if !progressed {
            return Err(BackendError::failed("the target", "the decode ended without a token"));
        }
    }
    Ok(ties)
}

/// The next step of a decode, unless the client disconnects first.
async fn next_step(target: &mut dyn Target, output: &Output) -> Result<Option<StepResult>, BackendError> {
    tokio::select! {
        step = target.step() => step,
        () = output.client_disconnected() => Err(BackendError::Cancelled),
    }
}

/// The number of bytes at the end of `bytes` that belong to an incomplete character.
fn incomplete_tail(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let needed = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if back < needed { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::request::Prompt;
    use crate::testing::{FakeModel, prepare};

    /// Commits `text` byte by byte. Returns the text that was sent after each byte, and the finish reason.
    async fn run(text: &[u8], stop: &[&str], max_tokens: u32) -> (Vec<String>, Option<FinishReason>) {
        let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
        let request = Request { stop, max_tokens: Some(max_tokens), ..Request::default() };
        let session = FakeModel::new("bytes", "").target(0, max_tokens);
        let opened = OpenedTarget {
            session: Box::new(session),
            cached_tokens: 0,
            prepared: prepare(Arc::new(request)),
        };
        let (sink, mut events) = mpsc::channel(100);
        let mut output = Output::new(&opened, sink);
        let mut sent = Vec::new();
        for byte in text {
            let committed = vec![CommittedToken { token: u32::from(*byte), logprobs: None }];
            let step = StepResult { committed, ..StepResult::default() };
            let finished = output.commit(&step, opened.session.as_ref()).await.unwrap();
            sent.push(events.try_recv().map(|event| event.text).unwrap_or_default());
            if finished {
                break;
            }
        }
        (sent, output.finish_reason)
    }

    #[tokio::test]
    async fn meter_counts_the_tokens_of_an_unfinished_request() {
        let request = Arc::new(Request { prompt: Prompt::Text("four".into()), ..Request::default() });
        let session = Box::new(FakeModel::new("bytes", "").target(0, 100));
        let opened = OpenedTarget { session, cached_tokens: 0, prepared: prepare(request.clone()) };
        let (sink, _events) = mpsc::channel(100);
        let mut output = Output::new(&opened, sink);
        let committed = b"ab".map(|byte| CommittedToken { token: u32::from(byte), logprobs: None }).to_vec();
        let step = StepResult { committed, ..StepResult::default() };
        output.commit(&step, opened.session.as_ref()).await.unwrap();
        drop(output);
        let expected = Usage { prompt_tokens: 4, completion_tokens: 2, cached_tokens: 0 };
        assert_eq!(request.meter.usage(), expected);
    }

    #[tokio::test]
    async fn output_sends_complete_characters() {
        let (sent, _) = run("aé🦀".as_bytes(), &[], 100).await;
        assert_eq!(sent, ["a", "", "é", "", "", "", "🦀"]);
    }

    #[tokio::test]
    async fn output_replaces_invalid_bytes() {
        let (sent, _) = run(b"a\xffb", &[], 100).await;
        assert_eq!(sent.concat(), "a\u{fffd}b");
    }

    #[tokio::test]
    async fn output_holds_back_every_part_of_a_stop_string() {
        let (sent, finish_reason) = run(b"say STOP now", &["STOP"], 100).await;
        assert_eq!(sent.concat(), "say ");
        assert_eq!(finish_reason, Some(FinishReason::Stop));
    }

    #[tokio::test]
    async fn output_sends_an_unfinished_stop_string_late() {
        let (sent, _) = run(b"STxSS!", &["STOP", "SS?"], 100).await;
        assert_eq!(sent, ["", "", "STx", "", "", "SS!"]);
    }

    #[tokio::test]
    async fn output_ends_at_the_stop_string_that_is_complete_first() {
        let text = b"abcd".as_slice();
        // The result does not depend on the tokens that carry the text.
        let (sent, _) = run(text, &["abcd", "c"], 100).await;
        assert_eq!(sent.concat(), "ab");
        let mut matcher = StopMatcher::new(&["aab".to_owned()]);
        let found = b"aaab".iter().map(|byte| matcher.push(*byte));
        assert_eq!(found.collect::<Vec<_>>(), [None, None, None, Some(3)]);
    }

    #[tokio::test]
    async fn meter_counts_the_tokens_of_a_cancelled_request() {
        let (sink, mut events) = mpsc::channel(1);
        let request = Request { prompt: Prompt::Text("hello".into()), ..Request::default() };
        let model = FakeModel::new("bytes", "abcdef");
        let client = async move { events.recv().await.map(drop) };
        let (outcome, _) = tokio::join!(generate_by_decoding(&model, request.clone(), sink), client);
        assert!(matches!(outcome, Err(BackendError::Cancelled)), "{outcome:?}");
        let usage = request.meter.usage();
        assert_eq!(usage.prompt_tokens, 5);
        assert!((1..6).contains(&usage.completion_tokens), "{usage:?}");
    }

    #[tokio::test]
    async fn output_sends_held_text_at_the_last_token() {
        let (sent, finish_reason) = run(b"abST", &["STOP"], 4).await;
        assert_eq!(sent.concat(), "abST");
        assert_eq!(finish_reason, Some(FinishReason::Length));
    }
}
