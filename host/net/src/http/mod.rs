//! Parts that all servers of tightwad share: the error object, body limits and bearer tokens.

pub(crate) mod bearer;
pub(crate) mod body_limit;
pub(crate) mod error;
pub(crate) mod nodelay;

pub use bearer::has_token;
pub use body_limit::{MAX_BODY_BYTES, refuse_large_body};
pub use error::{ApiError, method_not_allowed, panic_response, unknown_path};
pub use nodelay::with_nodelay;
