//! What must not end, open or freeze a host.

mod context;
mod https;
mod mixed;
mod prompts;
mod recurrent;
mod scripts;
mod tokens;
