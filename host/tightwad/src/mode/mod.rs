//! The modes: backends made of other backends and a plugin.

mod health;
mod speculation;

pub use speculation::{Speculation, Totals};
