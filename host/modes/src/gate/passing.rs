//! What goes to the client before a review is over, and behind which the reviewer can go on.

use std::time::Instant;

use tightwad_core::{BackendError, Committed, Event, Left, Outcome, Output, Report, Verified, decode_to_end};

use crate::gate::review::{Ending, Given, ReviewTask};

impl ReviewTask {
    /// The first `tokens` tokens of a scored candidate go to the client now; why not, where they cannot.
    pub(crate) async fn pass(&mut self, candidate: usize, tokens: usize) -> Result<(), String> {
        let written = &self.written[candidate];
        let more = self.given.is_none_or(|given| given.candidate == candidate && given.tokens < tokens);
        if tokens == 0 || tokens > written.scored.len() || !more {
            return Err(format!("{tokens} tokens of candidate {candidate} cannot be passed on"));
        }
        if !self.can_go_on() {
            return Err("the reviewer cannot go on from the middle".to_owned());
        }
        let tokenizer = self.spec.reviewer.as_target().and_then(|target| target.tokenizer());
        let tokenizer = tokenizer.ok_or("the reviewer has no vocabulary of its own")?;
        let first: Vec<u32> = written.scored[..tokens].iter().map(|scored| scored.token).collect();
        let bytes = tokenizer.detokenize(&first).await.map_err(|error| error.to_string())?;
        if !written.text.as_bytes().starts_with(&bytes) {
            return Err("the reviewer's tokens are other words".to_owned());
        }
        // Half a character waits for its other half.
        let end = written.text.floor_char_boundary(bytes.len());
        let text = written.text[self.given.map_or(0, |given| given.bytes)..end].to_owned();
        if !text.is_empty() && self.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
            self.failure = Some(BackendError::Cancelled);
        }
        self.tally.passed = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.given = Some(Given { candidate, tokens, bytes: end });
        Ok(())
    }

    /// The first `keep` tokens of a scored candidate stay, and the reviewer goes on; false where it cannot.
    pub(crate) async fn correct(&mut self, candidate: usize, keep: usize) -> bool {
        let scored = &self.written[candidate].scored;
        let behind = self.given.is_none_or(|given| given.candidate == candidate && given.tokens <= keep);
        if keep == 0 || keep > scored.len() || !behind || !self.can_go_on() {
            return false;
        }
        let (start, all) = (Instant::now(), scored.len());
        let kept = scored[..keep].iter().map(|scored| scored.token).collect();
        let done = self.go_on(kept).await;
        self.tally.took[2] += start.elapsed();
        match self.reviewed(done) {
            Ok((outcome, decoded)) => {
                self.tally.decoded += decoded;
                self.tally.kept = keep as f64 / all as f64;
                self.end(outcome, Ending::Corrected, Some(candidate));
            }
            // Nothing else can follow what the client may have.
            Err(error) if self.begun => self.failure = Some(error),
            Err(error) => {
                tracing::warn!(%error, "a correction was not possible");
                return self.is_over();
            }
        }
        true
    }

    fn can_go_on(&self) -> bool {
        self.spec.reviewer.as_target().is_some_and(|target| target.resumes() && target.verifies())
    }

    /// Generates behind tokens of a candidate; how many came after them.
    async fn go_on(&mut self, kept: Vec<u32>) -> Result<(Outcome, u32), BackendError> {
        let reviewer = self.spec.reviewer.target()?;
        let task = reviewer.read(&self.request).await?;
        let left = Left { prompt: task.prompt, output: kept.clone(), max_tokens: task.max_tokens };
        let opened = reviewer.open_target(&self.request, Some(&left)).await?;
        let given = self.given.map_or(0, |given| given.bytes);
        let mut output = Output::new(&opened, self.sink.clone()).behind(given);
        let mut target = opened.session;
        self.begun = true;
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
}
