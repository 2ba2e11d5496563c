//! Input and events that must not stop, open or freeze a host.

mod context;
mod https;
mod keys;
mod mixed;
mod model_files;
mod prompts;
mod recurrent;
mod scripts;
mod tokens;
