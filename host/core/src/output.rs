//! The way from committed tokens to the client's text.
//!
//! Invariant: `pending` holds the bytes that were committed and not sent; nothing in it that could
//! still become a stop string, or the rest of a character, is ever sent.

use std::sync::Arc;

use crate::backend::{Sink, TargetSource};
use crate::error::BackendError;
use crate::event::{Event, Outcome, Report, TextLogprobs, Usage};
use crate::request::Request;
use crate::session::{OpenTarget, Target};
use crate::tokens::{Committed, Finish, TokenId, Verified};

/// Streams the committed tokens of one request: whole UTF-8 characters, no part of a stop string.
pub struct Output {
    sink: Sink,
    stop: Vec<Vec<u8>>,
    max_tokens: u32,
    usage: Usage,
    tokens: Vec<TokenId>,
    pending: Vec<u8>,
    /// Log-probabilities of tokens whose text is not all sent, with the bytes still to send
    /// before the token begins.
    waiting: Vec<(usize, TextLogprobs)>,
    finish: Option<Finish>,
    /// Bytes at the beginning that the client has already.
    given: usize,
}

impl Output {
    /// For the request that `opened` answers.
    #[must_use]
    pub fn new(opened: &OpenTarget, sink: Sink) -> Self {
        let task = &opened.task;
        let usage = Usage {
            prompt_tokens: u32::try_from(task.prompt.len()).unwrap_or(u32::MAX),
            completion_tokens: 0,
            cached_tokens: opened.cached,
        };
        Self {
            sink,
            stop: task.request.stop.iter().map(|stop| stop.clone().into_bytes()).collect(),
            max_tokens: task.max_tokens,
            usage,
            tokens: Vec::new(),
            pending: Vec::new(),
            waiting: Vec::new(),
            finish: None,
            given: 0,
        }
    }

    /// Goes on behind the first `bytes` of the text, which the client has already.
    #[must_use]
    pub fn behind(mut self, bytes: usize) -> Self {
        self.given = bytes;
        self
    }

    /// Takes what the target committed and streams its text; true when the request is over.
    ///
    /// # Errors
    ///
    /// [`BackendError::Cancelled`] when the client has left.
    pub async fn commit(&mut self, verified: &Verified, target: &dyn Target) -> Result<bool, BackendError> {
        for committed in &verified.committed {
            if self.finish.is_some() {
                break;
            }
            self.push(committed, target);
        }
        if self.finish.is_none() {
            self.finish = verified.finish;
        }
        let safe = if self.finish.is_some() { self.pending.len() } else { self.safe_length() };
        self.send(safe).await?;
        Ok(self.finish.is_some())
    }

    /// The tokens committed so far.
    #[must_use]
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// How many more tokens may be committed.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        if self.is_over() { 0 } else { self.max_tokens.saturating_sub(self.usage.completion_tokens) }
    }

    /// True after the end of the turn, a stop string or the last token.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.finish.is_some()
    }

    /// True when the client has left.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.sink.is_closed()
    }

    /// Completes when the client has left.
    pub async fn abandoned(&self) {
        self.sink.closed().await;
    }

    /// Why the request ended and what it used.
    #[must_use]
    pub fn end(self) -> (Finish, Usage) {
        (self.finish.unwrap_or(Finish::Length), self.usage)
    }

    fn push(&mut self, committed: &Committed, target: &dyn Target) {
        let bytes = target.bytes(committed.token);
        let start = self.pending.len();
        self.tokens.push(committed.token);
        self.usage.completion_tokens += 1;
        if let Some(logprobs) = &committed.logprobs {
            let top = logprobs.top.iter().map(|(token, value)| (target.bytes(*token), *value)).collect();
            let own = TextLogprobs { bytes: bytes.clone(), logprob: logprobs.logprob, top };
            self.waiting.push((start, own));
        }
        self.pending.extend_from_slice(&bytes);
        if let Some(at) = self.stop_at() {
            self.pending.truncate(at);
            self.waiting.retain(|(start, _)| *start < at);
            self.finish = Some(Finish::Stop);
        } else if self.usage.completion_tokens >= self.max_tokens {
            self.finish = Some(Finish::Length);
        }
    }

    /// Where the first stop string begins.
    fn stop_at(&self) -> Option<usize> {
        let find = |stop: &Vec<u8>| self.pending.windows(stop.len()).position(|window| window == stop);
        self.stop.iter().filter_map(find).min()
    }

    /// How many pending bytes can be sent whatever follows.
    fn safe_length(&self) -> usize {
        let held = |stop: &Vec<u8>| {
            let most = self.pending.len().min(stop.len() - 1);
            (1..=most).rev().find(|length| self.pending.ends_with(&stop[..*length])).unwrap_or(0)
        };
        let held = self.stop.iter().map(held).max().unwrap_or(0);
        let safe = self.pending.len() - held;
        safe - incomplete_tail(&self.pending[..safe])
    }

    async fn send(&mut self, length: usize) -> Result<(), BackendError> {
        let given = self.given.min(length);
        self.given -= given;
        let text = String::from_utf8_lossy(&self.pending[given..length]).into_owned();
        self.pending.drain(..length);
        let begun = |(start, _): &&(usize, TextLogprobs)| self.finish.is_some() || *start < length;
        let ready = self.waiting.iter().take_while(begun).count();
        let logprobs: Vec<TextLogprobs> = self.waiting.drain(..ready).map(|(_, logprobs)| logprobs).collect();
        for (start, _) in &mut self.waiting {
            *start -= length.min(*start);
        }
        if text.is_empty() && logprobs.is_empty() {
            return if self.sink.is_closed() { Err(BackendError::Cancelled) } else { Ok(()) };
        }
        self.sink.send(Event { text, logprobs }).await.map_err(|_| BackendError::Cancelled)
    }
}

/// Opens a session on `target` and lets it decode: every target can do that.
///
/// # Errors
///
/// The target's, and [`BackendError::Cancelled`] when the client has left.
pub async fn generate_plainly(
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
    let (finish, usage) = output.end();
    let exact = session.is_exact();
    Ok(Outcome {
        finish,
        usage,
        report: Report { mode: "plain".to_owned(), exact, ties, ..Report::default() },
    })
}

/// Generates plainly until `output` is over; returns the ties that were decided again.
///
/// # Errors
///
/// What the target answers, and [`BackendError::Cancelled`] when the client has left.
pub async fn decode_to_end(target: &mut dyn Target, output: &mut Output) -> Result<u32, BackendError> {
    let mut ties = 0;
    while !output.is_over() {
        target.decode(output.remaining()).await?;
        let mut any = false;
        while let Some(step) = next(target, output).await? {
            any = true;
            ties += step.ties;
            if output.commit(&step, &*target).await? {
                break;
            }
        }
        if !any {
            return Err(BackendError::failed("the target", "it ended a decode without a token"));
        }
    }
    Ok(ties)
}

async fn next(target: &mut dyn Target, output: &Output) -> Result<Option<Verified>, BackendError> {
    tokio::select! {
        step = target.step() => step,
        () = output.abandoned() => Err(BackendError::Cancelled),
    }
}

/// Bytes at the end of `bytes` that begin a character and do not finish it.
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
    use crate::testing::{FakeModel, task};

    /// Commits `text` byte by byte; returns what was sent after each and the finish.
    async fn run(text: &[u8], stop: &[&str], max_tokens: u32) -> (Vec<String>, Option<Finish>) {
        let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
        let request = Request { stop, max_tokens: Some(max_tokens), ..Request::default() };
        let target = FakeModel::new("bytes", "").target(0, max_tokens);
        let opened = OpenTarget { session: Box::new(target), cached: 0, task: task(Arc::new(request)) };
        let (sink, mut events) = mpsc::channel(100);
        let mut output = Output::new(&opened, sink);
        let mut sent = Vec::new();
        for byte in text {
            let committed = vec![Committed { token: u32::from(*byte), logprobs: None }];
            let verified = Verified { committed, ..Verified::default() };
            let over = output.commit(&verified, opened.session.as_ref()).await.unwrap();
            sent.push(events.try_recv().map(|event| event.text).unwrap_or_default());
            if over {
                break;
            }
        }
        (sent, output.finish)
    }

    #[tokio::test]
    async fn characters_are_sent_whole() {
        let (sent, _) = run("aé🦀".as_bytes(), &[], 100).await;
        assert_eq!(sent, ["a", "", "é", "", "", "", "🦀"]);
    }

    #[tokio::test]
    async fn invalid_bytes_become_replacement_characters() {
        let (sent, _) = run(b"a\xffb", &[], 100).await;
        assert_eq!(sent.concat(), "a\u{fffd}b");
    }

    #[tokio::test]
    async fn no_part_of_a_stop_string_leaks() {
        let (sent, finish) = run(b"say STOP now", &["STOP"], 100).await;
        assert_eq!(sent.concat(), "say ");
        assert_eq!(finish, Some(Finish::Stop));
    }

    #[tokio::test]
    async fn a_stop_string_that_does_not_come_is_sent_late() {
        let (sent, _) = run(b"STxSS!", &["STOP", "SS?"], 100).await;
        assert_eq!(sent, ["", "", "STx", "", "", "SS!"]);
    }

    #[tokio::test]
    async fn held_text_is_sent_at_the_last_token() {
        let (sent, finish) = run(b"abST", &["STOP"], 4).await;
        assert_eq!(sent.concat(), "abST");
        assert_eq!(finish, Some(Finish::Length));
    }
}
