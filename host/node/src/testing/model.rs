//! A fake model: the next token follows from the tokens before it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Committed, Draft, Drafter, DrafterSource, Expected, Finish, Left, ModelFacts,
    OpenTarget, Pass, Processor, Proposal, Request, Target, TargetSource, Task, TokenId, TokenLogprobs,
    Tokenizer, Verified,
};

/// The time from a call to its answer, and the cost that the request is charged.
pub(crate) type PassTime = (Duration, Duration);
/// Prompt and output at the opening of a session.
pub(crate) type Opening = (Vec<TokenId>, Vec<TokenId>);

/// How long forward passes take.
#[async_trait]
pub(crate) trait Passes: Send + Sync {
    /// Makes a pass over `rows`.
    async fn pass(&self, rows: usize) -> PassTime;
}

/// Passes that take no time.
struct Instantly;

#[async_trait]
impl Passes for Instantly {
    async fn pass(&self, _rows: usize) -> PassTime {
        (Duration::ZERO, Duration::ZERO)
    }
}

/// A model of letters: a token is the byte of its text.
#[derive(Clone)]
pub(crate) struct Model {
    passes: Arc<dyn Passes>,
    /// The rows of each pass, in order.
    pub rows: Arc<Mutex<Vec<usize>>>,
    /// The sessions that were opened, in order.
    pub opened: Arc<Mutex<Vec<Opening>>>,
    /// The digest of its weights.
    pub weights: Arc<Mutex<String>>,
}

impl Model {
    /// A model whose passes take no time.
    pub(crate) fn new() -> Self {
        Self::with_passes(Arc::new(Instantly))
    }

    pub(crate) fn with_passes(passes: Arc<dyn Passes>) -> Self {
        let weights = Arc::new(Mutex::new("cd".repeat(32)));
        Self { passes, rows: Arc::default(), opened: Arc::default(), weights }
    }

    /// What it generates after `tokens`.
    pub(crate) fn continuation(tokens: &[TokenId], count: usize) -> Vec<TokenId> {
        let mut all = tokens.to_vec();
        for _ in 0..count {
            all.push(next(&all));
        }
        all.split_off(tokens.len())
    }

    /// How many passes it made.
    pub(crate) fn passes(&self) -> usize {
        self.rows.lock().unwrap().len()
    }

    fn task(request: &Arc<Request>, prompt: Vec<TokenId>, max_tokens: u32) -> Task {
        Task {
            request: request.clone(),
            prompt: prompt.into(),
            text: request.prompt.text().into(),
            max_tokens,
            constraint: None,
            tokenizer: Arc::new(Letters),
        }
    }
}

/// A letter that depends on all `tokens`.
fn next(tokens: &[TokenId]) -> TokenId {
    let sum = tokens.iter().fold(7_u32, |sum, token| sum.wrapping_mul(31).wrapping_add(*token));
    u32::from(b'a') + sum % 26
}

fn letters(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

struct Letters;

#[async_trait]
impl Tokenizer for Letters {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        Ok(letters(text))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().map(|token| *token as u8).collect())
    }
}

struct Sequence {
    model: Model,
    logprobs: bool,
    prompt: usize,
    tokens: Vec<TokenId>,
    max_tokens: usize,
    left: u32,
}

impl Sequence {
    /// Commits the next token.
    fn commit(&mut self) -> Committed {
        let token = next(&self.tokens);
        self.tokens.push(token);
        let top = vec![(token, -0.5), (u32::from(b'?'), -1.5)];
        let logprobs = self.logprobs.then_some(TokenLogprobs { logprob: -0.5, top });
        Committed { token, logprobs }
    }

    fn finish(&self) -> Option<Finish> {
        (self.tokens.len() - self.prompt >= self.max_tokens).then_some(Finish::Length)
    }

    async fn pass(&self, rows: usize) -> PassTime {
        self.model.rows.lock().unwrap().push(rows);
        self.model.passes.pass(rows).await
    }
}

#[async_trait]
impl Target for Sequence {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        let rows = draft.nodes() + 1;
        let (took, cost) = self.pass(rows).await;
        let mut verified = Verified { took, cost, rows: rows as u32, ..Verified::default() };
        let draft = draft.paths().first().cloned().unwrap_or_default();
        for proposed in draft.into_iter().map(Some).chain([None]) {
            verified.committed.push(self.commit());
            verified.finish = self.finish();
            if proposed != self.tokens.last().copied() || verified.finish.is_some() {
                break;
            }
            verified.accepted += 1;
        }
        Ok(verified)
    }

    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        self.tokens.extend(tokens);
        Ok(tokens.len())
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.left = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        let left = self.left.checked_sub(1).filter(|_| self.finish().is_none());
        let Some(left) = left else { return Ok(None) };
        self.left = left;
        let (took, cost) = self.pass(1).await;
        let committed = vec![self.commit()];
        let finish = self.finish();
        Ok(Some(Verified { committed, took, cost, finish, ..Verified::default() }))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        vec![token as u8]
    }

    fn expected(&self) -> Pass {
        Pass::default()
    }

    fn processor(&self) -> Processor {
        Processor::Here
    }
}

/// Proposes what the model will generate; each token is less probable than the one before.
struct Guesser(Vec<TokenId>);

#[async_trait]
impl Drafter for Guesser {
    fn name(&self) -> &str {
        "guesser"
    }

    fn processor(&self) -> Processor {
        Processor::Here
    }

    fn expected(&self) -> Expected {
        Expected::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let tokens = Model::continuation(&[&self.0, output].concat(), max as usize);
        let probability = |index: usize| 1.0 / (index + 1) as f32;
        let proposals = tokens.into_iter().enumerate();
        let proposals = proposals.map(|(index, token)| Proposal { token, probability: probability(index) });
        Ok(proposals.take_while(|proposal| proposal.probability >= min_probability).collect())
    }
}

impl Backend for Model {
    fn name(&self) -> &str {
        "model"
    }

    fn facts(&self) -> Option<ModelFacts> {
        let weights = self.weights.lock().unwrap().clone();
        Some(ModelFacts { vocabulary: "ab".repeat(32), weights, ..ModelFacts::default() })
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl TargetSource for Model {
    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(Arc::new(Letters))
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        Ok(Self::task(request, letters(&request.prompt.text()), 100))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let (prompt, output, max_tokens) = match left {
            Some(left) => (left.prompt.to_vec(), left.output.clone(), left.max_tokens),
            None => (letters(&request.prompt.text()), Vec::new(), request.max_tokens.unwrap_or(100)),
        };
        self.opened.lock().unwrap().push((prompt.clone(), output.clone()));
        let session = Sequence {
            model: self.clone(),
            logprobs: request.sampling.logprobs.is_some(),
            prompt: prompt.len(),
            tokens: [prompt.as_slice(), &output].concat(),
            max_tokens: max_tokens as usize,
            left: 0,
        };
        Ok(OpenTarget {
            session: Box::new(session),
            cached: 3,
            task: Self::task(request, prompt, max_tokens),
        })
    }
}

#[async_trait]
impl DrafterSource for Model {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.opened.lock().unwrap().push((task.prompt.to_vec(), Vec::new()));
        Ok(Box::new(Guesser(task.prompt.to_vec())))
    }
}
