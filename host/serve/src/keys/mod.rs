//! API keys: who may do what, how often, and for how many tokens.
//!
//! [`api_keys::ApiKeys`] finds the [`client::Client`] of a request by its secret. A [`key::Key`] checks rights and
//! limits before the body is read. A [`crate::token_count::TokenCount`] adds the tokens of the request to the key's
//! [`usage::KeyUsage`], and a [`usage_saver::UsageSaver`] keeps the usage in a file.

pub(crate) mod api_keys;
pub(crate) mod client;
pub(crate) mod key;
pub(crate) mod metrics;
pub(crate) mod new_key;
pub(crate) mod rate_limit_headers;
pub(crate) mod refusal;
pub(crate) mod request_limit;
pub(crate) mod route_access;
pub(crate) mod usage;
pub(crate) mod usage_file;
pub(crate) mod usage_saver;
pub(crate) mod utc_clock;
