//! The controller on recorded cost curves, with drafters of known quality.

mod recorded;

use recorded::{FLAT, SMOL, cost};
use tightwad_speculation::controller::{Controller, Facts, Plan};
use tightwad_speculation::cost::Verification;

const QWEN: &[(usize, f64)] = &[
    (1, 36.0),
    (2, 74.0),
    (3, 90.0),
    (4, 112.0),
    (5, 135.0),
    (8, 201.0),
    (12, 290.0),
    (16, 380.0),
    (32, 748.0),
    (65, 1500.0),
];
/// SmolLM2 by the engine's own kernels: further rows are cheap.
const CHEAP: &[(usize, f64)] =
    &[(1, 6.9), (3, 9.2), (5, 10.8), (9, 14.5), (17, 21.9), (33, 37.6), (65, 72.0)];
/// A pool of two workers, 10 ms from here each way: SmolLM2, one thread each.
const POOL: &[(usize, f64)] =
    &[(1, 66.0), (2, 85.0), (3, 103.0), (5, 134.0), (9, 172.0), (17, 280.0), (33, 439.0), (65, 800.0)];

/// What a host measures when it loads the target.
fn expected(curve: &[(usize, f64)]) -> Verification {
    expected_away(curve, 0.0)
}

/// The same, of a target `away` milliseconds from here and back.
fn expected_away(curve: &[(usize, f64)], away: f64) -> Verification {
    let nanos = |ms: f64| (ms * 1e6) as u64;
    Verification::expecting(nanos(cost(curve, 1)), nanos(cost(curve, 9) / 9.0), nanos(away))
}

/// A drafter: acceptance of each token, its claimed confidence, cost in ms a token.
struct Drafter {
    acceptance: f64,
    confidence: f32,
    cost: f64,
}

/// Milliseconds a token, plain decoding over this run: above 1 is faster than plain.
fn speedup(curve: &[(usize, f64)], drafters: &[Drafter], tokens: usize) -> f64 {
    speedup_away(curve, drafters, tokens, 0.0, quiet, &mut String::new())
}

/// Numbers between 0 and 1 (xorshift).
fn numbers(mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What a measurement is multiplied by on a machine that does nothing else.
fn quiet(_: f64, _: f64) -> f64 {
    1.0
}

/// The same on one that does, of two numbers below 1: some per cent more or less, and now and then a pause.
fn noisy(one: f64, other: f64) -> f64 {
    if other < 0.03 { 1.0 + 3.0 * one } else { 0.9 + 0.25 * one }
}

/// The same with a target `away` milliseconds from here and back, and what an earlier request noted.
/// Plain decoding goes that way once.
fn speedup_away(
    curve: &[(usize, f64)],
    drafters: &[Drafter],
    tokens: usize,
    away: f64,
    noise: fn(f64, f64) -> f64,
    note: &mut String,
) -> f64 {
    let mut random = numbers(0x9E37_79B9_7F4A_7C15);
    // Other numbers for each of several requests.
    let mut other = numbers(note.bytes().fold(7, |seed, byte| seed.rotate_left(5) ^ u64::from(byte)));
    let mut noise = || noise(other(), other());
    let nanos = |ms: f64| (ms * 1e6) as u64;
    let facts = |drafter: &Drafter| match drafter.cost {
        ..0.01 => Facts::default(),
        ms => Facts { token: nanos(ms), ..Facts::default() },
    };
    let facts: Vec<Facts> = drafters.iter().map(facts).collect();
    let mut controller = Controller::new(expected_away(curve, away), &facts, 32);
    tightwad_speculation::memory::read(note, &mut controller);
    let (mut done, mut time) = (0, 0.0);
    while done < tokens {
        let mut asked = vec![false; drafters.len()];
        let remaining = (tokens - done) as u32;
        loop {
            match controller.plan(&asked, remaining) {
                Plan::Decode(n) => {
                    let n = (n as usize).min(tokens - done);
                    let took = cost(curve, 1) * n as f64 + away;
                    controller.decoded(n, nanos(took * noise()));
                    for index in controller.shadows(n as u32) {
                        let drafter = &drafters[index];
                        let length = n.min(16);
                        let agreed = (0..length).take_while(|_| random() < drafter.acceptance).count();
                        controller.shadowed(index, &vec![drafter.confidence; length], agreed, 1000);
                    }
                    done += n;
                    time += took;
                    break;
                }
                Plan::Draft { drafter: index, max, .. } => {
                    asked[index] = true;
                    let drafter = &drafters[index];
                    let took = drafter.cost * f64::from(max);
                    time += took;
                    controller.drafted(index, max as usize, nanos(took), false);
                    let probabilities = vec![drafter.confidence; max as usize];
                    let length = controller.cut(index, &probabilities, remaining);
                    if length == 0 {
                        controller.refused(index, drafter.confidence);
                        continue;
                    }
                    let accepted = (0..length).take_while(|_| random() < drafter.acceptance).count();
                    let took = cost(curve, length + 1) + away;
                    controller.verified(index, &probabilities[..length], accepted, nanos(took * noise()));
                    done += accepted + 1;
                    time += took;
                    break;
                }
            }
        }
    }
    *note = tightwad_speculation::memory::write(&controller);
    (cost(curve, 1) * done as f64 + away) / time
}

/// The best that a draft length fixed in hindsight could reach.
fn hindsight(curve: &[(usize, f64)], drafter: &Drafter) -> f64 {
    (0..=32)
        .map(|n| {
            let expected: f64 = (0..=n).map(|k| drafter.acceptance.powi(k)).sum();
            expected * cost(curve, 1) / (cost(curve, n as usize + 1) + drafter.cost * f64::from(n))
        })
        .fold(0.0, f64::max)
}

#[test]
fn a_useless_drafter_costs_under_three_percent() {
    for (curve, ms) in [(SMOL, 5.0), (SMOL, 0.001), (QWEN, 17.0), (QWEN, 0.001), (FLAT, 4.0)] {
        for confidence in [0.3, 0.6, 0.95] {
            for tokens in [128, 512, 2048] {
                let useless = Drafter { acceptance: 0.0, confidence, cost: ms };
                let speedup = speedup(curve, &[useless], tokens);
                assert!(speedup > 0.97, "{speedup} at {ms} ms, {confidence}, {tokens} tokens");
            }
        }
    }
}

#[test]
fn near_the_best_fixed_length() {
    let cases =
        [(SMOL, 0.98, 0.001), (QWEN, 0.97, 0.001), (FLAT, 0.73, 4.0), (FLAT, 0.9, 2.0), (SMOL, 0.6, 5.0)];
    for (curve, acceptance, ms) in cases {
        let drafter = Drafter { acceptance, confidence: 0.8, cost: ms };
        let best = hindsight(curve, &drafter);
        let reached = speedup(curve, &[drafter], 1024);
        println!("{reached} of {best} at {acceptance}, {ms} ms");
        assert!(reached > 0.9 * best, "{reached} of {best} at {acceptance}, {ms} ms");
    }
}

#[test]
fn a_useless_drafter_beside_a_good_one() {
    let useless = Drafter { acceptance: 0.0, confidence: 0.6, cost: 0.001 };
    let good = Drafter { acceptance: 0.85, confidence: 0.8, cost: 2.0 };
    let reached = speedup(FLAT, &[useless, good], 1024);
    assert!(reached > 1.8, "{reached}");
}

/// Copied passages of 40 tokens between 4 new ones, as in edited code: a lookup drafter knows how
/// long its match is, and says so. Requests of 160 tokens, each with what the one before learned.
#[test]
fn copied_passages_gain_and_confident_nonsense_does_not_lose() {
    for (right, at_least) in [(true, 1.4), (false, 0.97)] {
        let (mut note, mut done, mut time, mut last) = (String::new(), 0, 0.0, 0.0);
        for _ in 0..12 {
            let mut controller = Controller::new(expected(SMOL), &[Facts::default()], 32);
            tightwad_speculation::memory::read(&note, &mut controller);
            let (tokens, took) = copied(SMOL, &mut controller, right, 160);
            (done, time, last) = (done + tokens, time + took, tokens as f64 * cost(SMOL, 1) / took);
            note = tightwad_speculation::memory::write(&controller);
        }
        let all = done as f64 * cost(SMOL, 1) / time;
        println!("right {right}: {all} in all, {last} in the last request");
        assert!(all >= at_least, "{all}");
    }
}

/// Requests in a row, of which each knows what the ones before it learned, on a machine that is not quiet.
#[test]
fn what_seems_to_be_gained_by_chance_is_not_risked() {
    for (curve, ms) in [(SMOL, 0.001), (CHEAP, 0.001), (CHEAP, 2.0), (FLAT, 0.001), (FLAT, 4.0)] {
        let (mut note, mut took) = (String::new(), 0.0);
        for _ in 0..40 {
            let useless = Drafter { acceptance: 0.0, confidence: 0.95, cost: ms };
            took += 1.0 / speedup_away(curve, &[useless], 128, 0.0, noisy, &mut note);
        }
        let all = 40.0 / took;
        println!("{all} at {ms} ms");
        assert!(all > 0.98, "{all} at {ms} ms");
    }
}

/// Twelve requests with a drafter that is no good, and then one that is.
#[test]
fn a_drafter_that_was_bad_is_found_out_to_be_good() {
    let mut note = String::new();
    let mut next = |acceptance: f64| {
        let drafter = Drafter { acceptance, confidence: 0.8, cost: 0.001 };
        speedup_away(CHEAP, &[drafter], 128, 0.0, quiet, &mut note)
    };
    for _ in 0..12 {
        next(0.0);
    }
    let reached: Vec<f64> = (0..6).map(|_| next(0.9)).collect();
    println!("{reached:?}");
    assert!(reached[5] > 2.0, "{reached:?}");
}

/// Tokens done and milliseconds taken.
fn copied(curve: &[(usize, f64)], controller: &mut Controller, right: bool, tokens: usize) -> (usize, f64) {
    let (mut done, mut time, mut matched) = (0, 0.0, 0_usize);
    while done < tokens {
        let remaining = (tokens - done) as u32;
        let ahead = 40_usize.saturating_sub(done % 44);
        let plan = controller.plan(&[matched < 2], remaining);
        let Plan::Draft { max, .. } = plan else {
            let Plan::Decode(n) = plan else { unreachable!() };
            let took = cost(curve, 1) * f64::from(n);
            controller.decoded(n as usize, (took * 1e6) as u64);
            (done, time) = (done + n as usize, time + took);
            matched = if done % 44 < 40 { matched + n as usize } else { 0 };
            continue;
        };
        let claimed = |n: usize| 1.0 - 0.9 / (1.0 + n as f32).powf(0.9);
        let probabilities: Vec<f32> = (0..max as usize).map(|n| claimed(matched + n)).collect();
        let length = controller.cut(0, &probabilities, remaining);
        if length == 0 {
            controller.refused(0, probabilities[0]);
            controller.decoded(1, (cost(curve, 1) * 1e6) as u64);
            (done, time) = (done + 1, time + cost(curve, 1));
            matched = if done % 44 < 40 { matched + 1 } else { 0 };
            continue;
        }
        let accepted = if right { length.min(ahead) } else { 0 };
        let took = cost(curve, length + 1);
        controller.verified(0, &probabilities[..length], accepted, (took * 1e6) as u64);
        (done, time) = (done + accepted + 1, time + took);
        matched = if done % 44 < 40 { matched + accepted + 1 } else { 0 };
    }
    (done, time)
}

/// Twenty requests of 128 tokens to a target far away: nothing is lost on a drafter that is no good, and
/// one that is good gains where the way is short enough for that.
#[test]
fn a_target_far_away_is_not_asked_in_vain() {
    for (curve, acceptance, away, at_least) in [
        (SMOL, 0.0, 4.0, 0.97),
        (SMOL, 0.0, 20.0, 0.97),
        (SMOL, 0.0, 80.0, 0.97),
        (QWEN, 0.0, 4.0, 0.97),
        (QWEN, 0.3, 80.0, 0.97),
        (FLAT, 0.0, 20.0, 0.97),
        (SMOL, 0.98, 4.0, 1.3),
        (SMOL, 0.98, 20.0, 0.97),
        (QWEN, 0.98, 20.0, 1.2),
        (FLAT, 0.9, 20.0, 2.0),
        (FLAT, 0.98, 80.0, 1.5),
    ] {
        let (mut note, mut plain, mut own) = (String::new(), 0.0, 0.0);
        for _ in 0..20 {
            let drafter = Drafter { acceptance, confidence: 0.8, cost: 0.001 };
            let speedup = speedup_away(curve, &[drafter], 128, away, quiet, &mut note);
            let alone = cost(curve, 1) * 128.0 + away;
            (plain, own) = (plain + alone, own + alone / speedup);
        }
        let all = plain / own;
        println!("{all} at {acceptance}, {away} ms away");
        assert!(all >= at_least, "{all} at {acceptance}, {away} ms away");
    }
}

/// The same passages with a draft length that never changes: tokens done and milliseconds taken.
fn copied_at(curve: &[(usize, f64)], length: usize, tokens: usize) -> (usize, f64) {
    let (mut done, mut time, mut matched) = (0, 0.0, 0_usize);
    while done < tokens {
        let ahead = 40_usize.saturating_sub(done % 44);
        let length = if matched < 2 { 0 } else { length.min(tokens - done - 1) };
        let accepted = length.min(ahead);
        (done, time) = (done + accepted + 1, time + cost(curve, length + 1));
        matched = if done % 44 < 40 { matched + accepted + 1 } else { 0 };
    }
    (done, time)
}

#[test]
fn copied_passages_over_a_pool() {
    for (right, tokens, requests) in [(true, 96, 5), (true, 256, 5), (false, 96, 5), (false, 96, 20)] {
        let (mut note, mut done, mut time) = (String::new(), 0, 0.0);
        for _ in 0..requests {
            let mut controller = Controller::new(expected(POOL), &[Facts::default()], 32);
            tightwad_speculation::memory::read(&note, &mut controller);
            let (tokens, took) = copied(POOL, &mut controller, right, tokens);
            (done, time) = (done + tokens, time + took);
            note = tightwad_speculation::memory::write(&controller);
        }
        let all = done as f64 * cost(POOL, 1) / time;
        let best = [1, 2, 4, 8, 16, 32].map(|length| copied_at(POOL, length, tokens));
        let best = best.iter().map(|(done, took)| *done as f64 * cost(POOL, 1) / took).fold(0.0, f64::max);
        println!("right {right}, {requests} requests of {tokens}: {all} in all, {best} in hindsight");
        let at_least = if right { 0.9 * best } else { 0.97 };
        assert!(all >= at_least, "{all} of {best}");
    }
}
