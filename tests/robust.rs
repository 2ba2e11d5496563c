//! What must not end, open or freeze a host.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod support;

#[path = "robust/context.rs"]
mod context;
#[path = "robust/https.rs"]
mod https;
#[path = "robust/mixed.rs"]
mod mixed;
#[path = "robust/prompts.rs"]
mod prompts;
#[path = "robust/recurrent.rs"]
mod recurrent;
#[path = "robust/scripts.rs"]
mod scripts;
#[path = "robust/tokens.rs"]
mod tokens;
