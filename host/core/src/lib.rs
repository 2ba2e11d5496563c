//! Plain data, the traits of backends, and what every mode and server builds on. No native code.
//!
//! A [`Backend`] offers roles. A [`Generator`] answers a [`Request`]: it streams [`Event`]s and ends with an
//! [`Outcome`]. A [`Scorer`] scores answers. Modes drive sessions: a [`TargetSource`] opens a [`Target`], which verifies
//! and decodes; a [`DrafterSource`] opens a [`Drafter`], which proposes.

mod align;
mod backend;
mod backoff;
mod circuit_breaker;
mod clock;
mod constraint;
mod context;
mod digest;
mod draft;
mod error;
mod event;
mod facts;
mod fallback;
mod folders;
mod follow;
mod lookup;
mod output;
mod pool_spec;
mod relay;
mod request;
mod sampling;
mod session;
mod size;
mod spec;
pub mod sync;
pub mod testing;
mod token;
mod tokens;
mod translated;
mod wire;

pub use align::aligned;
pub use backend::{Backend, DrafterSource, Generator, Scorer, SharedBackend, Sink, TargetSource};
pub use backoff::Backoff;
pub use circuit_breaker::CircuitBreaker;
pub use clock::Clock;
pub use constraint::Constraint;
pub use context::{InvalidContext, context_length};
pub use digest::{digest, hexadecimal};
pub use draft::{Draft, InvalidTree};
pub use error::{BackendError, innermost};
pub use event::{Event, GateReport, Outcome, Report, TextLogprobs, Usage};
pub use facts::{Load, ModelFacts, is_default};
pub use fallback::Fallback;
pub use folders::{user_cache, user_data};
pub use follow::{Followed, Successor};
pub use lookup::Lookup;
pub use output::{Output, decode_to_end, generate_plainly};
pub use pool_spec::{PoolSpec, WorkerSpec};
pub use relay::relay;
pub use request::{Format, Message, Prompt, Request, Tool, ToolChoice};
pub use sampling::{InvalidSampling, Sampling, SamplingSpec};
pub use session::{
    Drafter, Expected, Left, OpenTarget, Pass, Processor, PromptReader, Target, Task, Tokenizer,
};
pub use size::{InvalidSize, Size};
pub use spec::{CacheSpec, OnFailure, OnReviewerLost, Ways};
pub use token::{InvalidToken, Token};
pub use tokens::{Committed, Finish, Proposal, Scored, TokenId, TokenLogprobs, Verified};
pub use translated::Translated;
pub use wire::WireRequest;
