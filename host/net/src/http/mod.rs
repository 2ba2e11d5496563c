//! Parts that all servers of tightwad share: the error object, the limit on bodies and bearer tokens.

pub(crate) mod bearer;
pub(crate) mod body_limit;
pub(crate) mod error;
pub(crate) mod paths;

pub use bearer::has_token;
pub use body_limit::{MAX_BODY_BYTES, discard_body};
pub use error::{ApiError, method_not_allowed, panic_response};
