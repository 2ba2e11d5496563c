//! A fake model, and a node that lends it and whose calls can be lost or changed on the way.

mod model;
mod node;

pub(crate) use model::{Model, PassTime, Passes};
pub(crate) use node::{Accident, FakeNode};
