//! A fake model whose next token depends on the tokens before it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, CommittedToken, Device, Draft, DraftCost, Drafter, DrafterSource, FinishReason,
    ModelFacts, OpenedTarget, PassCost, PreparedRequest, Proposal, Request, ResumePoint, StepResult, Target,
    TargetSource, TokenId, TokenLogprobs, Tokenizer,
};

/// Elapsed time and attributed cost of a pass.
pub(crate) type PassTime = (Duration, Duration);
/// Prompt and output of a newly opened session.
pub(crate) type OpenedSession = (Vec<TokenId>, Vec<TokenId>);

/// The time of forward passes.
#[async_trait]
pub(crate) trait PassTimer: Send + Sync {
    /// Runs a pass over `rows` rows.
    async fn pass(&self, rows: usize) -> PassTime;
}

/// Passes that take no time.
struct InstantPasses;

#[async_trait]
impl PassTimer for InstantPasses {
    async fn pass(&self, _rows: usize) -> PassTime {
        (Duration::ZERO, Duration::ZERO)
    }
}

/// A model of letters: a token is one byte of text.
#[derive(Clone)]
pub(crate) struct FakeModel {
    timer: Arc<dyn PassTimer>,
    /// The rows of each pass, in order.
    pub rows: Arc<Mutex<Vec<usize>>>,
    /// The sessions that were opened, in order.
    pub opened: Arc<Mutex<Vec<OpenedSession>>>,
    /// The digest of the model's weights.
    pub weights: Arc<Mutex<String>>,
    /// The context length that the model reports; 0: unknown.
    context: u32,
}

impl FakeModel {
    /// A model whose passes take no time.
    pub(crate) fn new() -> Self {
        Self::with_timer(Arc::new(InstantPasses))
    }

    pub(crate) fn with_timer(timer: Arc<dyn PassTimer>) -> Self {
        let weights = Arc::new(Mutex::new("cd".repeat(32)));
        Self { timer, rows: Arc::default(), opened: Arc::default(), weights, context: 0 }
    }

    /// The same model with this context length in tokens.
    pub(crate) fn with_context(self, context: u32) -> Self {
        Self { context, ..self }
    }

    /// The tokens that the model generates after `tokens`.
    pub(crate) fn continuation(tokens: &[TokenId], count: usize) -> Vec<TokenId> {
        let mut sequence = tokens.to_vec();
        for _ in 0..count {
            sequence.push(next(&sequence));
        }
        sequence.split_off(tokens.len())
    }

    /// Number of passes so far.
    pub(crate) fn passes(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    fn prepared_request(request: &Arc<Request>, prompt: Vec<TokenId>, max_tokens: u32) -> PreparedRequest {
        PreparedRequest {
            request: request.clone(),
            prompt: prompt.into(),
            text: request.prompt.text().into(),
            max_tokens,
            constraint: None,
            tokenizer: Arc::new(LetterTokenizer),
        }
    }
}

/// A letter that depends on all `tokens`.
fn next(tokens: &[TokenId]) -> TokenId {
    let sum = tokens.iter().fold(7_u32, |sum, token| sum.wrapping_mul(31).wrapping_add(*token));
    u32::from(b'a') + sum % 26
}

fn letter_tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

struct LetterTokenizer;

#[async_trait]
impl Tokenizer for LetterTokenizer {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        Ok(letter_tokens(text))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().map(|token| *token as u8).collect())
    }
}

struct FakeTarget {
    model: FakeModel,
    logprobs: bool,
    prompt: usize,
    tokens: Vec<TokenId>,
    max_tokens: usize,
    remaining: u32,
}

impl FakeTarget {
    /// Commits the next token.
    fn commit(&mut self) -> CommittedToken {
        let token = next(&self.tokens);
        self.tokens.push(token);
        let top = vec![(token, -0.5), (u32::from(b'?'), -1.5)];
        let logprobs = self.logprobs.then_some(TokenLogprobs { logprob: -0.5, top });
        CommittedToken { token, logprobs }
    }

    fn finish(&self) -> Option<FinishReason> {
        (self.tokens.len() - self.prompt >= self.max_tokens).then_some(FinishReason::Length)
    }

    async fn pass(&self, rows: usize) -> PassTime {
        self.model.rows.lock().unwrap().push(rows);
        self.model.timer.pass(rows).await
    }
}

#[async_trait]
impl Target for FakeTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        let rows = draft.node_count() + 1;
        let (elapsed, cost) = self.pass(rows).await;
        let mut verified = StepResult { elapsed, cost, rows: rows as u32, ..StepResult::default() };
        let draft = draft.paths().first().cloned().unwrap_or_default();
        for proposed in draft.into_iter().map(Some).chain([None]) {
            verified.committed.push(self.commit());
            verified.finish_reason = self.finish();
            if proposed != self.tokens.last().copied() || verified.finish_reason.is_some() {
                break;
            }
            verified.accepted += 1;
        }
        Ok(verified)
    }

    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        self.tokens.extend(tokens);
        Ok(tokens.len())
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.remaining = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        let remaining = self.remaining.checked_sub(1).filter(|_| self.finish().is_none());
        let Some(remaining) = remaining else { return Ok(None) };
        self.remaining = remaining;
        let (elapsed, cost) = self.pass(1).await;
        let committed = vec![self.commit()];
        let finish = self.finish();
        Ok(Some(StepResult { committed, elapsed, cost, finish_reason: finish, ..StepResult::default() }))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        vec![token as u8]
    }

    fn expected_cost(&self) -> PassCost {
        PassCost::default()
    }

    fn device(&self) -> Device {
        Device::LocalCpu
    }
}

/// Proposes the model's own continuation, with falling probabilities.
struct FakeDrafter(Vec<TokenId>);

#[async_trait]
impl Drafter for FakeDrafter {
    fn name(&self) -> &str {
        "fake"
    }

    fn device(&self) -> Device {
        Device::LocalCpu
    }

    fn expected_cost(&self) -> DraftCost {
        DraftCost::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let tokens = FakeModel::continuation(&[&self.0, output].concat(), max as usize);
        let probability = |index: usize| 1.0 / (index + 1) as f32;
        let proposals = tokens.into_iter().enumerate();
        let proposals = proposals.map(|(index, token)| Proposal { token, probability: probability(index) });
        Ok(proposals.take_while(|proposal| proposal.probability >= min_probability).collect())
    }
}

impl Backend for FakeModel {
    fn name(&self) -> &str {
        "model"
    }

    fn facts(&self) -> Option<ModelFacts> {
        let weights = self.weights.lock().unwrap().clone();
        let context = self.context;
        Some(ModelFacts { vocabulary: "ab".repeat(32), weights, context, ..ModelFacts::default() })
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl TargetSource for FakeModel {
    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(Arc::new(LetterTokenizer))
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        Ok(Self::prepared_request(request, letter_tokens(&request.prompt.text()), 100))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let (prompt, output, max_tokens) = match resume_point {
            Some(point) => (point.prompt.to_vec(), point.output.clone(), point.max_tokens),
            None => (letter_tokens(&request.prompt.text()), Vec::new(), request.max_tokens.unwrap_or(100)),
        };
        self.opened.lock().unwrap().push((prompt.clone(), output.clone()));
        let session = FakeTarget {
            model: self.clone(),
            logprobs: request.sampling.logprobs.is_some(),
            prompt: prompt.len(),
            tokens: [prompt.as_slice(), &output].concat(),
            max_tokens: max_tokens as usize,
            remaining: 0,
        };
        Ok(OpenedTarget {
            session: Box::new(session),
            cached_tokens: 3,
            prepared: Self::prepared_request(request, prompt, max_tokens),
        })
    }
}

#[async_trait]
impl DrafterSource for FakeModel {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        self.opened.lock().unwrap().push((prepared.prompt.to_vec(), Vec::new()));
        Ok(Box::new(FakeDrafter(prepared.prompt.to_vec())))
    }
}
