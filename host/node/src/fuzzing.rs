//! Fuzz targets. Each parses any bytes, and panics if a parser has a fault.

// A panic is the finding.
#![allow(clippy::panic)]

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::calls::{
    DecodeCall, DetokenizeCall, DetokenizeReply, OpenCall, OpenReply, ProposeCall, ProposeReply, ScoreCall,
    ScoreReply, Step, TokenizeCall, TokenizeReply, VerifyCall,
};
use crate::protocol::checksum::{from_checked_json, to_checked_json};
use crate::protocol::facts::NodeFacts;

/// Each message of the node protocol survives writing and parsing. The first byte chooses the message.
pub fn message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 14 {
        0 => drop(round_trip::<OpenCall>(bytes)),
        1 => drop(round_trip::<OpenReply>(bytes)),
        2 => verify(bytes),
        3 => drop(round_trip::<DecodeCall>(bytes)),
        4 => drop(round_trip::<ProposeCall>(bytes)),
        5 => drop(round_trip::<ProposeReply>(bytes)),
        6 => step(bytes),
        7 => drop(round_trip::<ScoreCall>(bytes)),
        8 => drop(round_trip::<ScoreReply>(bytes)),
        9 => drop(round_trip::<TokenizeCall>(bytes)),
        10 => drop(round_trip::<TokenizeReply>(bytes)),
        11 => drop(round_trip::<DetokenizeCall>(bytes)),
        12 => drop(round_trip::<DetokenizeReply>(bytes)),
        _ => drop(round_trip::<NodeFacts>(bytes)),
    }
}

/// A valid draft is a tree that survives a second call.
fn verify(bytes: &[u8]) {
    let Some(call) = round_trip::<VerifyCall>(bytes) else { return };
    let Ok(draft) = call.draft() else { return };
    let again = VerifyCall::new(call.position, &call.unverified, &draft);
    assert_eq!(again.draft().ok(), Some(draft));
}

fn step(bytes: &[u8]) {
    let Some(step) = round_trip::<Step>(bytes) else { return };
    let (elapsed, cost) = step.times();
    assert!(cost <= elapsed || step.cost_us.is_some());
}

/// Parses a message with and without a checksum. Writes it, and parses what was written.
fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let _ = from_checked_json::<T>(bytes, true);
    let message: T = from_checked_json(bytes, false).ok()?;
    let Ok(written) = to_checked_json(&message) else { panic!("a parsed message cannot be written") };
    let parsed = from_checked_json::<T>(&written, true);
    let Ok(parsed) = parsed else { panic!("a written message cannot be parsed: {written:?}") };
    assert_eq!(to_checked_json(&parsed).ok(), Some(written));
    Some(message)
}
