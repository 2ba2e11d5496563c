//! What a guest holds of a gate's task.
// The generated bindings name these types as public ones.
#![allow(unreachable_pub)]

/// The task.
pub struct TaskHandle;
