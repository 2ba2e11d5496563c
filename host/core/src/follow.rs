//! A target that another one goes on for when it is lost, from the last committed token, in the same
//! stream.
//!
//! Invariant: `left` is what the client has been given, whichever target it came from.

use async_trait::async_trait;

use crate::draft::Draft;
use crate::error::BackendError;
use crate::session::{Left, OpenTarget, Pass, Processor, Target};
use crate::tokens::{TokenId, Verified};

/// Knows who goes on.
#[async_trait]
pub trait Successor: Send + Sync {
    /// Opens the next target from where the last one was left; `lost` says what became of that one.
    ///
    /// # Errors
    ///
    /// `lost`, or a later failure, when nobody goes on.
    async fn next(&mut self, lost: BackendError, left: &Left) -> Result<OpenTarget, BackendError>;

    /// False once tokens came from other weights than promised.
    fn is_exact(&self) -> bool {
        true
    }
}

/// A target and its successors.
pub struct Followed {
    current: Box<dyn Target>,
    successor: Box<dyn Successor>,
    left: Left,
    /// Tokens still to decode.
    decoding: u32,
}

impl Followed {
    /// Follows a target that was just opened, with `left` where another was left.
    #[must_use]
    pub fn open(opened: OpenTarget, successor: Box<dyn Successor>, left: Option<&Left>) -> OpenTarget {
        let OpenTarget { session, cached, task } = opened;
        let left = Left {
            prompt: task.prompt.clone(),
            output: left.map(|left| left.output.clone()).unwrap_or_default(),
            max_tokens: task.max_tokens,
        };
        let followed = Self { current: session, successor, left, decoding: 0 };
        OpenTarget { session: Box::new(followed), cached, task }
    }

    /// Goes over to the next target, or returns `error`.
    async fn next(&mut self, error: BackendError) -> Result<(), BackendError> {
        if !error.is_loss() {
            return Err(error);
        }
        self.current = self.successor.next(error, &self.left).await?.session;
        Ok(())
    }

    fn note(&mut self, verified: &Verified) {
        self.left.output.extend(verified.committed.iter().map(|committed| committed.token));
    }
}

#[async_trait]
impl Target for Followed {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        loop {
            match self.current.verify(draft).await {
                Ok(verified) => {
                    self.note(&verified);
                    return Ok(verified);
                }
                Err(error) => self.next(error).await?,
            }
        }
    }

    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        loop {
            match self.current.accept(tokens).await {
                Ok(accepted) => {
                    self.left.output.extend(&tokens[..accepted]);
                    return Ok(accepted);
                }
                Err(error) => self.next(error).await?,
            }
        }
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.decoding = max;
        while let Err(error) = self.current.decode(self.decoding).await {
            self.next(error).await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        loop {
            match self.current.step().await {
                Ok(Some(verified)) => {
                    self.note(&verified);
                    let committed = u32::try_from(verified.committed.len()).unwrap_or(u32::MAX);
                    self.decoding = self.decoding.saturating_sub(committed);
                    return Ok(Some(verified));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.next(error).await?;
                    self.decode(self.decoding).await?;
                }
            }
        }
    }

    /// Text of tokens that came from another target is known by none but that one; equal vocabularies make
    /// the present one's as good.
    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.current.bytes(token)
    }

    fn expected(&self) -> Pass {
        self.current.expected()
    }

    fn processor(&self) -> Processor {
        self.current.processor()
    }

    fn is_exact(&self) -> bool {
        self.successor.is_exact() && self.current.is_exact()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::TargetSource;
    use crate::output::{Output, decode_to_end};
    use crate::request::Request;
    use crate::testing::{Events, FakeModel};

    /// Targets that follow each other.
    struct Line(Vec<FakeModel>);

    #[async_trait]
    impl Successor for Line {
        async fn next(&mut self, lost: BackendError, left: &Left) -> Result<OpenTarget, BackendError> {
            if self.0.is_empty() {
                return Err(lost);
            }
            self.0.remove(0).open_target(&Arc::new(Request::default()), Some(left)).await
        }
    }

    async fn answer(first: FakeModel, others: Vec<FakeModel>) -> (String, Result<u32, BackendError>) {
        let opened = first.open_target(&Arc::new(Request::default()), None).await.unwrap();
        let mut opened = Followed::open(opened, Box::new(Line(others)), None);
        let (sink, mut events) = Events::new();
        let mut output = Output::new(&opened, sink);
        let done = decode_to_end(opened.session.as_mut(), &mut output).await;
        (events.text(), done)
    }

    #[tokio::test]
    async fn a_decode_goes_on_with_the_next_target_after_the_last_committed_token() {
        let model = |name: &str| FakeModel::new(name, "one two three");
        let line = vec![model("second").failing_after(8), model("third")];
        let (text, done) = answer(model("first").failing_after(4), line).await;
        assert_eq!((text.as_str(), done.is_ok()), ("one two three", true));
    }

    #[tokio::test]
    async fn without_another_target_what_was_committed_stays_and_the_error_is_the_last_one() {
        let (text, done) = answer(FakeModel::new("first", "one two").failing_after(4), Vec::new()).await;
        assert_eq!(text, "one ");
        assert_eq!(done.unwrap_err().to_string(), "first failed: it is lost");
    }

    #[tokio::test]
    async fn a_verification_is_made_by_the_next_target_and_not_twice() {
        let first = FakeModel::new("first", "abcdef").failing_after(0);
        let opened = FakeModel::new("first", "abcdef").failing_after(3);
        let mut opened = opened.open_target(&Arc::new(Request::default()), None).await.unwrap();
        let line = Line(vec![FakeModel::new("second", "abcdef")]);
        opened = Followed::open(opened, Box::new(line), None);
        let draft: Draft = crate::testing::tokens("abx").into();
        let committed =
            |verified: Verified| verified.committed.iter().map(|one| one.token).collect::<Vec<_>>();
        assert_eq!(committed(opened.session.verify(&draft).await.unwrap()), crate::testing::tokens("abc"));
        let draft: Draft = crate::testing::tokens("de").into();
        assert_eq!(committed(opened.session.verify(&draft).await.unwrap()), crate::testing::tokens("def"));
        assert!(first.open_target(&Arc::new(Request::default()), None).await.is_err());
    }
}
