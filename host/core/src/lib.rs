//! Data types, the traits of backends, and parts that modes and servers share. This crate has no native code.
//!
//! A [`Backend`] offers roles. A [`Generator`] answers a [`Request`]: it streams [`Event`]s and ends with an
//! [`Outcome`]. A [`Scorer`] scores answers.
//!
//! Modes drive sessions. A [`TargetSource`] opens a [`Target`], which verifies and decodes. A [`DrafterSource`] opens a
//! [`Drafter`], which proposes.

/// The name of threads that run scripts. The engine counts their CPU time like that of another program.
pub const SCRIPT_THREAD_NAME: &str = "lua";

mod api_key;
mod backend;
mod backoff;
mod circuit_breaker;
mod clock;
mod constraint;
mod context_length;
mod digest;
mod draft;
mod error;
mod event;
mod facts;
mod failover;
mod fallback;
mod heads;
mod health;
mod json_size;
mod lookup;
mod output;
mod pool_spec;
mod printable;
mod random;
mod relay;
mod request;
mod sampling;
mod session;
mod size;
mod spec;
mod stop;
pub mod sync;
pub mod testing;
mod token;
mod tokenize_draft;
mod tokens;
mod translation;
mod usage_meter;
mod user_dirs;
mod watched_files;
mod wire;

pub use api_key::{
    Credentials, InvalidKeyHash, InvalidKeyName, KeyHash, KeyName, KeySpec, Right, parse_date,
};
pub use backend::{Backend, DrafterSource, Generator, Scorer, SharedBackend, Sink, TargetSource};
pub use backoff::Backoff;
pub use circuit_breaker::CircuitBreaker;
pub use clock::Clock;
pub use constraint::Constraint;
pub use context_length::{InvalidContextLength, parse_context_length};
pub use digest::{parse_digest, to_hex};
pub use draft::{Draft, InvalidTree};
pub use error::{BackendError, root_cause};
pub use event::{Event, GateReport, Outcome, Report, TextLogprobs, Usage};
pub use facts::{Load, ModelFacts, is_default};
pub use failover::{FailoverTarget, StandbySource};
pub use fallback::Fallback;
pub use heads::Heads;
pub use health::Health;
pub use json_size::{JsonSize, MAX_JSON_NUMBERS, MAX_JSON_PARTS, TooMuchJson};
pub use lookup::Lookup;
pub use output::{Output, decode_to_end, generate_by_decoding};
pub use pool_spec::{PoolSpec, WorkerSpec};
pub use printable::printable;
pub use random::{random_bytes, random_hex};
pub use relay::relay;
pub use request::{ChatOptions, Continuation, Format, Message, Prompt, Request, Tool, ToolChoice};
pub use sampling::{InvalidSampling, MAX_LOGIT_BIASES, MAX_TOP_LOGPROBS, Sampling, SamplingSpec};
pub use session::{
    Device, DraftCost, Drafter, OpenedTarget, PassCost, PreparedRequest, PromptReader, ResumePoint, Target,
    Tokenizer,
};
pub use size::{InvalidSize, Size};
pub use spec::{CacheSpec, OnFailure, OnReviewerLost, PluginSpec, ReviewMethods};
pub use token::{InvalidToken, Token, bearer_secret};
pub use tokenize_draft::tokenize_draft;
pub use tokens::{CommittedToken, FinishReason, Proposal, StepResult, TokenId, TokenLogprobs, TokenScore};
pub use translation::TranslatingBackend;
pub use usage_meter::UsageMeter;
pub use user_dirs::{user_cache_dir, user_data_dir, user_state_dir};
pub use watched_files::{WatchTiming, WatchedFiles};
pub use wire::WireRequest;
