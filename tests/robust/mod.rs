//! Input and events that must not stop, open or freeze a host.

mod context;
mod https;
mod mixed;
mod prompts;
mod recurrent;
mod scripts;
mod tokens;
