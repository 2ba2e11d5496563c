//! What the output must look like, in the form that one backend compiled.

use std::any::Any;
use std::sync::Arc;

/// A compiled constraint on the output. Only the backend that compiled it knows its type; others pass it on.
#[derive(Clone)]
pub struct Constraint(Arc<dyn Any + Send + Sync>);

impl Constraint {
    /// Wraps what a backend compiled.
    #[must_use]
    pub fn new(compiled: impl Any + Send + Sync) -> Self {
        Self(Arc::new(compiled))
    }

    /// The compiled form; `None`: another kind of backend made it.
    #[must_use]
    pub fn get<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_type_that_was_compiled_is_given_back() {
        let constraint = Constraint::new("grammar");
        assert_eq!(constraint.get::<&str>(), Some(&"grammar"));
        assert!(constraint.get::<u32>().is_none());
    }
}
