//! The resource that a guest holds while it drives a gate.
// The generated bindings require public types.
#![allow(unreachable_pub)]

/// The task.
pub struct TaskHandle;
