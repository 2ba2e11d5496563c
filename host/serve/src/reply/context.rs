//! The state of a response.

use tightwad_net::door::Shutdown;

use crate::admission::BodyShare;
use crate::choices::Choices;
use crate::metrics::RequestMeasurement;
use crate::reply::meta::ResponseMeta;

/// The state of a response: its common fields, its choices, its measurement, and its share of the memory for
/// bodies.
pub(crate) struct ResponseContext {
    pub meta: ResponseMeta,
    pub choices: Choices,
    pub measurement: RequestMeasurement,
    /// A stream ends at its deadline.
    pub shutdown: Shutdown,
    pub _share: BodyShare,
}
