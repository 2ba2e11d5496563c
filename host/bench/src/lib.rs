//! `tightwad bench`: measures side by side in one run and reports ratios.

mod attack;
mod busy;
mod calibration;
mod checker;
mod command;
mod consensus;
mod contest;
mod exact;
mod gate;
mod gates;
mod local_process;
mod network;
mod passes;
mod plot;
mod pool;
mod prompts;
mod replay;
mod soak;
mod speed;
mod swarm;
mod useless;

pub use command::Bench;
