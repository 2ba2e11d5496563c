//! What our servers share: the error object, limits of bodies, bearer tokens.

pub(crate) mod bearer;
pub(crate) mod error;
pub(crate) mod limit;
pub(crate) mod nodelay;

pub use bearer::has_token;
pub use error::{ApiError, panicked, unknown_path, wrong_method};
pub use limit::{BODY_LIMIT, refuse_large};
pub use nodelay::at_once;
