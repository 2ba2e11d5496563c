//! A fake model, and a node on loopback that can inject faults into its calls.

mod model;
mod node;

pub(crate) use model::{FakeModel, PassTime, PassTimer};
pub(crate) use node::{FakeNode, Fault};
