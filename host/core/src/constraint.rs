//! A restriction of the output, compiled by one backend.

use std::any::Any;
use std::sync::Arc;

/// A compiled constraint on the output. Only the backend that compiled the constraint knows its type.
#[derive(Clone)]
pub struct Constraint(Arc<dyn Any + Send + Sync>);

impl Constraint {
    /// Wraps a backend's compiled form.
    #[must_use]
    pub fn new(compiled: impl Any + Send + Sync) -> Self {
        Self(Arc::new(compiled))
    }

    /// The compiled form; `None` if its type is not `T`, because another kind of backend compiled it.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraint_returns_only_the_compiled_type() {
        let constraint = Constraint::new("grammar");
        assert_eq!(constraint.get::<&str>(), Some(&"grammar"));
        assert!(constraint.get::<u32>().is_none());
    }
}
