//! The state of a response.

use std::sync::Arc;

use crate::choices::Choices;
use crate::metrics::{Metrics, RequestMeasurement};
use crate::reply::meta::ResponseMeta;

/// The state of a response: its common fields, its choices and its measurement.
pub(crate) struct ResponseContext {
    pub meta: ResponseMeta,
    pub choices: Choices,
    pub metrics: Arc<Metrics>,
    pub measurement: RequestMeasurement,
}
