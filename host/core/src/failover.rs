//! Failover: the next target continues a stream from the last committed token when a target is lost.
//!
//! Invariant: `resume_point` holds the committed tokens of all targets.

use async_trait::async_trait;

use crate::draft::Draft;
use crate::error::BackendError;
use crate::session::{Device, OpenedTarget, PassCost, ResumePoint, Target};
use crate::tokens::{StepResult, TokenId};

/// Opens the standby targets of one request, in order.
#[async_trait]
pub trait StandbySource: Send + Sync {
    /// Opens the next target at `resume_point`. `error` is the failure of the previous target.
    ///
    /// # Errors
    ///
    /// Returns `error`, or the failure of the last standby, if no standby is left.
    async fn open_next(
        &mut self,
        error: BackendError,
        resume_point: &ResumePoint,
    ) -> Result<OpenedTarget, BackendError>;

    /// False after a target with other weights than the primary took part.
    fn is_exact(&self) -> bool {
        true
    }
}

/// A target and its standbys, as one target session.
pub struct FailoverTarget {
    current: Box<dyn Target>,
    standbys: Box<dyn StandbySource>,
    resume_point: ResumePoint,
    /// The number of tokens that the current decode may still commit.
    remaining_tokens: u32,
}

impl FailoverTarget {
    /// Adds `standbys` to a target that was opened at `resume_point`.
    #[must_use]
    pub fn open(
        opened: OpenedTarget,
        standbys: Box<dyn StandbySource>,
        resume_point: Option<&ResumePoint>,
    ) -> OpenedTarget {
        let OpenedTarget { session, cached_tokens, prepared } = opened;
        let resume_point = ResumePoint {
            prompt: prepared.prompt.clone(),
            output: resume_point.map(|point| point.output.clone()).unwrap_or_default(),
            max_tokens: prepared.max_tokens,
        };
        let target = Self { current: session, standbys, resume_point, remaining_tokens: 0 };
        OpenedTarget { session: Box::new(target), cached_tokens, prepared }
    }

    /// Switches to the next target; returns `error` if the failure does not allow a failover.
    async fn fail_over(&mut self, error: BackendError) -> Result<(), BackendError> {
        if !error.allows_failover() {
            return Err(error);
        }
        self.current = self.standbys.open_next(error, &self.resume_point).await?.session;
        Ok(())
    }

    fn record(&mut self, step: &StepResult) {
        self.resume_point.output.extend(step.committed.iter().map(|committed| committed.token));
    }
}

#[async_trait]
impl Target for FailoverTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        loop {
            match self.current.verify(draft).await {
                Ok(step) => {
                    self.record(&step);
                    return Ok(step);
                }
                Err(error) => self.fail_over(error).await?,
            }
        }
    }

    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        loop {
            match self.current.append_unverified(tokens).await {
                Ok(appended) => {
                    self.resume_point.output.extend(&tokens[..appended]);
                    return Ok(appended);
                }
                Err(error) => self.fail_over(error).await?,
            }
        }
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.remaining_tokens = max;
        while let Err(error) = self.current.decode(self.remaining_tokens).await {
            self.fail_over(error).await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        loop {
            match self.current.step().await {
                Ok(Some(step)) => {
                    self.record(&step);
                    let committed = u32::try_from(step.committed.len()).unwrap_or(u32::MAX);
                    self.remaining_tokens = self.remaining_tokens.saturating_sub(committed);
                    return Ok(Some(step));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.fail_over(error).await?;
                    self.decode(self.remaining_tokens).await?;
                }
            }
        }
    }

    /// The text of the token in the current target's vocabulary. All targets have equal vocabularies, so tokens of
    /// earlier targets have the same text.
    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.current.bytes(token)
    }

    fn expected_cost(&self) -> PassCost {
        self.current.expected_cost()
    }

    fn device(&self) -> Device {
        self.current.device()
    }

    fn is_exact(&self) -> bool {
        self.standbys.is_exact() && self.current.is_exact()
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

    /// Standbys in order.
    struct FakeStandbys(Vec<FakeModel>);

    #[async_trait]
    impl StandbySource for FakeStandbys {
        async fn open_next(
            &mut self,
            error: BackendError,
            resume_point: &ResumePoint,
        ) -> Result<OpenedTarget, BackendError> {
            if self.0.is_empty() {
                return Err(error);
            }
            self.0.remove(0).open_target(&Arc::new(Request::default()), Some(resume_point)).await
        }
    }

    async fn answer(first: FakeModel, standbys: Vec<FakeModel>) -> (String, Result<u32, BackendError>) {
        let opened = first.open_target(&Arc::new(Request::default()), None).await.unwrap();
        let mut opened = FailoverTarget::open(opened, Box::new(FakeStandbys(standbys)), None);
        let (sink, mut events) = Events::new();
        let mut output = Output::new(&opened, sink);
        let result = decode_to_end(opened.session.as_mut(), &mut output).await;
        (events.text(), result)
    }

    #[tokio::test]
    async fn decode_continues_on_the_standby_after_the_last_committed_token() {
        let model = |name: &str| FakeModel::new(name, "one two three");
        let standbys = vec![model("second").failing_after(8), model("third")];
        let (text, result) = answer(model("first").failing_after(4), standbys).await;
        assert_eq!((text.as_str(), result.is_ok()), ("one two three", true));
    }

    #[tokio::test]
    async fn committed_text_stays_and_the_last_error_returns_without_a_standby() {
        let (text, result) = answer(FakeModel::new("first", "one two").failing_after(4), Vec::new()).await;
        assert_eq!(text, "one ");
        assert_eq!(result.unwrap_err().to_string(), "first failed: it is lost");
    }

    #[tokio::test]
    async fn standby_repeats_a_lost_verification_once() {
        let first = FakeModel::new("first", "abcdef").failing_after(0);
        let opened = FakeModel::new("first", "abcdef").failing_after(3);
        let mut opened = opened.open_target(&Arc::new(Request::default()), None).await.unwrap();
        let standbys = FakeStandbys(vec![FakeModel::new("second", "abcdef")]);
        opened = FailoverTarget::open(opened, Box::new(standbys), None);
        let draft: Draft = crate::testing::tokens("abx").into();
        let committed = |step: StepResult| step.committed.iter().map(|one| one.token).collect::<Vec<_>>();
        assert_eq!(committed(opened.session.verify(&draft).await.unwrap()), crate::testing::tokens("abc"));
        let draft: Draft = crate::testing::tokens("de").into();
        assert_eq!(committed(opened.session.verify(&draft).await.unwrap()), crate::testing::tokens("def"));
        assert!(first.open_target(&Arc::new(Request::default()), None).await.is_err());
    }
}
