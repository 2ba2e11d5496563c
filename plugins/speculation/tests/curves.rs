//! The controller on recorded cost curves, with drafters of known quality.

mod recorded;

use recorded::{GPU_LIKE, SMOL, cost};
use tightwad_speculation::controller::{Controller, Facts, Plan};
use tightwad_speculation::cost::PassCost;

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
/// SmolLM2 on the engine's own kernels: further rows are cheap.
const SMOL_KERNELS: &[(usize, f64)] =
    &[(1, 6.9), (3, 9.2), (5, 10.8), (9, 14.5), (17, 21.9), (33, 37.6), (65, 72.0)];
/// SmolLM2 on a pool of two workers with one thread each, 10 ms away in each direction.
const POOL: &[(usize, f64)] =
    &[(1, 66.0), (2, 85.0), (3, 103.0), (5, 134.0), (9, 172.0), (17, 280.0), (33, 439.0), (65, 800.0)];

/// The host's measurements of a target that it loaded.
fn expected(curve: &[(usize, f64)]) -> PassCost {
    expected_over_network(curve, 0.0)
}

/// The host's measurements of a target with a round trip of `round_trip` milliseconds.
fn expected_over_network(curve: &[(usize, f64)], round_trip: f64) -> PassCost {
    let nanos = |ms: f64| (ms * 1e6) as u64;
    PassCost::expecting(nanos(cost(curve, 1)), nanos(cost(curve, 9) / 9.0), nanos(round_trip))
}

/// A drafter: the acceptance of each token, the confidence that it claims, its cost in milliseconds per token.
struct Drafter {
    acceptance: f64,
    confidence: f32,
    cost: f64,
}

/// The speed over that of plain decoding.
fn speedup(curve: &[(usize, f64)], drafters: &[Drafter], tokens: usize) -> f64 {
    speedup_over_network(curve, drafters, tokens, 0.0, quiet, &mut String::new())
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

/// The factor of a measurement on an idle machine.
fn quiet(_: f64, _: f64) -> f64 {
    1.0
}

/// The factor of a measurement on a busy machine, from two numbers below 1: some per cent, and now and then a pause.
fn noisy(one: f64, other: f64) -> f64 {
    if other < 0.03 { 1.0 + 3.0 * one } else { 0.9 + 0.25 * one }
}

/// The speed over that of plain decoding, for a target with a round trip of `round_trip` milliseconds and the state
/// of an earlier request. Plain decoding takes one round trip.
fn speedup_over_network(
    curve: &[(usize, f64)],
    drafters: &[Drafter],
    tokens: usize,
    round_trip: f64,
    noise: fn(f64, f64) -> f64,
    saved_state: &mut String,
) -> f64 {
    let mut random = numbers(0x9E37_79B9_7F4A_7C15);
    // Each of several requests gets other numbers.
    let mut other = numbers(saved_state.bytes().fold(7, |seed, byte| seed.rotate_left(5) ^ u64::from(byte)));
    let mut noise = || noise(other(), other());
    let nanos = |ms: f64| (ms * 1e6) as u64;
    let facts = |drafter: &Drafter| match drafter.cost {
        ..0.01 => Facts::default(),
        ms => Facts { time_per_token: nanos(ms), ..Facts::default() },
    };
    let facts: Vec<Facts> = drafters.iter().map(facts).collect();
    let mut controller = Controller::new(expected_over_network(curve, round_trip), &facts, 32);
    tightwad_speculation::state::restore(saved_state, &mut controller);
    let (mut done, mut time) = (0, 0.0);
    while done < tokens {
        let mut asked = vec![false; drafters.len()];
        let remaining = (tokens - done) as u32;
        loop {
            match controller.plan(&asked, remaining) {
                Plan::Decode(n) => {
                    let n = (n as usize).min(tokens - done);
                    let took = cost(curve, 1) * n as f64 + round_trip;
                    controller.record_decode(n, nanos(took * noise()));
                    for index in controller.shadow_drafters(n as u32) {
                        let drafter = &drafters[index];
                        let length = n.min(16);
                        let agreed = (0..length).take_while(|_| random() < drafter.acceptance).count();
                        controller.record_shadow(index, &vec![drafter.confidence; length], agreed, 1000);
                    }
                    done += n;
                    time += took;
                    break;
                }
                Plan::Draft { drafter: index, max_tokens, .. } => {
                    asked[index] = true;
                    let drafter = &drafters[index];
                    let took = drafter.cost * f64::from(max_tokens);
                    time += took;
                    controller.record_draft(index, max_tokens as usize, nanos(took), false);
                    let probabilities = vec![drafter.confidence; max_tokens as usize];
                    let length = controller.draft_length(index, &probabilities, remaining);
                    if length == 0 {
                        controller.record_refusal(index, drafter.confidence);
                        continue;
                    }
                    let accepted = (0..length).take_while(|_| random() < drafter.acceptance).count();
                    let took = cost(curve, length + 1) + round_trip;
                    controller.record_verification(
                        index,
                        &probabilities[..length],
                        accepted,
                        nanos(took * noise()),
                    );
                    done += accepted + 1;
                    time += took;
                    break;
                }
            }
        }
    }
    *saved_state = tightwad_speculation::state::save(&controller);
    (cost(curve, 1) * done as f64 + round_trip) / time
}

/// The best speed with a draft length that is fixed in hindsight.
fn hindsight(curve: &[(usize, f64)], drafter: &Drafter) -> f64 {
    (0..=32)
        .map(|n| {
            let expected: f64 = (0..=n).map(|k| drafter.acceptance.powi(k)).sum();
            expected * cost(curve, 1) / (cost(curve, n as usize + 1) + drafter.cost * f64::from(n))
        })
        .fold(0.0, f64::max)
}

#[test]
fn useless_drafter_costs_under_three_percent() {
    for (curve, ms) in [(SMOL, 5.0), (SMOL, 0.001), (QWEN, 17.0), (QWEN, 0.001), (GPU_LIKE, 4.0)] {
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
fn controller_comes_near_the_best_fixed_length() {
    let cases = [
        (SMOL, 0.98, 0.001),
        (QWEN, 0.97, 0.001),
        (GPU_LIKE, 0.73, 4.0),
        (GPU_LIKE, 0.9, 2.0),
        (SMOL, 0.6, 5.0),
    ];
    for (curve, acceptance, ms) in cases {
        let drafter = Drafter { acceptance, confidence: 0.8, cost: ms };
        let best = hindsight(curve, &drafter);
        let reached = speedup(curve, &[drafter], 1024);
        println!("{reached} of {best} at {acceptance}, {ms} ms");
        assert!(reached > 0.9 * best, "{reached} of {best} at {acceptance}, {ms} ms");
    }
}

#[test]
fn useless_drafter_does_not_hide_a_good_one() {
    let useless = Drafter { acceptance: 0.0, confidence: 0.6, cost: 0.001 };
    let good = Drafter { acceptance: 0.85, confidence: 0.8, cost: 2.0 };
    let reached = speedup(GPU_LIKE, &[useless, good], 1024);
    assert!(reached > 1.8, "{reached}");
}

/// Requests of 160 tokens with copied passages of 40 tokens between 4 new ones, as in edited code. A lookup drafter
/// knows the length of its match and claims a confidence accordingly. Each request starts with the state of the last.
#[test]
fn copied_passages_gain_and_confident_nonsense_does_not_lose() {
    for (right, min_speedup) in [(true, 1.4), (false, 0.97)] {
        let (mut saved_state, mut done, mut time, mut last) = (String::new(), 0, 0.0, 0.0);
        for _ in 0..12 {
            let mut controller = Controller::new(expected(SMOL), &[Facts::default()], 32);
            tightwad_speculation::state::restore(&saved_state, &mut controller);
            let (tokens, took) = copied_passages(SMOL, &mut controller, right, 160);
            (done, time, last) = (done + tokens, time + took, tokens as f64 * cost(SMOL, 1) / took);
            saved_state = tightwad_speculation::state::save(&controller);
        }
        let all = done as f64 * cost(SMOL, 1) / time;
        println!("right {right}: {all} in all, {last} in the last request");
        assert!(all >= min_speedup, "{all}");
    }
}

/// Requests in a row on a busy machine. Each one starts with the state of the last.
#[test]
fn gains_by_chance_are_not_risked() {
    for (curve, ms) in
        [(SMOL, 0.001), (SMOL_KERNELS, 0.001), (SMOL_KERNELS, 2.0), (GPU_LIKE, 0.001), (GPU_LIKE, 4.0)]
    {
        let (mut saved_state, mut took) = (String::new(), 0.0);
        for _ in 0..40 {
            let useless = Drafter { acceptance: 0.0, confidence: 0.95, cost: ms };
            took += 1.0 / speedup_over_network(curve, &[useless], 128, 0.0, noisy, &mut saved_state);
        }
        let all = 40.0 / took;
        println!("{all} at {ms} ms");
        assert!(all > 0.98, "{all} at {ms} ms");
    }
}

/// Twelve requests with a useless drafter, then six with a good one.
#[test]
fn drafter_that_becomes_good_is_found() {
    let mut saved_state = String::new();
    let mut next = |acceptance: f64| {
        let drafter = Drafter { acceptance, confidence: 0.8, cost: 0.001 };
        speedup_over_network(SMOL_KERNELS, &[drafter], 128, 0.0, quiet, &mut saved_state)
    };
    for _ in 0..12 {
        next(0.0);
    }
    let reached: Vec<f64> = (0..6).map(|_| next(0.9)).collect();
    println!("{reached:?}");
    assert!(reached[5] > 2.0, "{reached:?}");
}

/// Returns the tokens done and the milliseconds taken.
fn copied_passages(
    curve: &[(usize, f64)],
    controller: &mut Controller,
    right: bool,
    tokens: usize,
) -> (usize, f64) {
    let (mut done, mut time, mut matched) = (0, 0.0, 0_usize);
    while done < tokens {
        let remaining = (tokens - done) as u32;
        let ahead = 40_usize.saturating_sub(done % 44);
        let plan = controller.plan(&[matched < 2], remaining);
        let Plan::Draft { max_tokens, .. } = plan else {
            let Plan::Decode(n) = plan else { unreachable!() };
            let took = cost(curve, 1) * f64::from(n);
            controller.record_decode(n as usize, (took * 1e6) as u64);
            (done, time) = (done + n as usize, time + took);
            matched = if done % 44 < 40 { matched + n as usize } else { 0 };
            continue;
        };
        let claimed = |n: usize| 1.0 - 0.9 / (1.0 + n as f32).powf(0.9);
        let probabilities: Vec<f32> = (0..max_tokens as usize).map(|n| claimed(matched + n)).collect();
        let length = controller.draft_length(0, &probabilities, remaining);
        if length == 0 {
            controller.record_refusal(0, probabilities[0]);
            controller.record_decode(1, (cost(curve, 1) * 1e6) as u64);
            (done, time) = (done + 1, time + cost(curve, 1));
            matched = if done % 44 < 40 { matched + 1 } else { 0 };
            continue;
        }
        let accepted = if right { length.min(ahead) } else { 0 };
        let took = cost(curve, length + 1);
        controller.record_verification(0, &probabilities[..length], accepted, (took * 1e6) as u64);
        (done, time) = (done + accepted + 1, time + took);
        matched = if done % 44 < 40 { matched + accepted + 1 } else { 0 };
    }
    (done, time)
}

/// Twenty requests of 128 tokens to a distant target. A useless drafter loses nothing. A good one gains if the round
/// trip is short enough.
#[test]
fn distant_target_gains_or_loses_nothing() {
    for (curve, acceptance, round_trip, min_speedup) in [
        (SMOL, 0.0, 4.0, 0.97),
        (SMOL, 0.0, 20.0, 0.97),
        (SMOL, 0.0, 80.0, 0.97),
        (QWEN, 0.0, 4.0, 0.97),
        (QWEN, 0.3, 80.0, 0.97),
        (GPU_LIKE, 0.0, 20.0, 0.97),
        (SMOL, 0.98, 4.0, 1.3),
        (SMOL, 0.98, 20.0, 0.97),
        (QWEN, 0.98, 20.0, 1.2),
        (GPU_LIKE, 0.9, 20.0, 2.0),
        (GPU_LIKE, 0.98, 80.0, 1.5),
    ] {
        let (mut saved_state, mut plain, mut own) = (String::new(), 0.0, 0.0);
        for _ in 0..20 {
            let drafter = Drafter { acceptance, confidence: 0.8, cost: 0.001 };
            let speedup = speedup_over_network(curve, &[drafter], 128, round_trip, quiet, &mut saved_state);
            let alone = cost(curve, 1) * 128.0 + round_trip;
            (plain, own) = (plain + alone, own + alone / speedup);
        }
        let all = plain / own;
        println!("{all} at {acceptance}, {round_trip} ms away");
        assert!(all >= min_speedup, "{all} at {acceptance}, {round_trip} ms away");
    }
}

/// The same passages with a draft length that never changes. Returns the tokens done and the milliseconds taken.
fn copied_at_fixed_length(curve: &[(usize, f64)], length: usize, tokens: usize) -> (usize, f64) {
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
fn copied_passages_over_a_pool_come_near_the_best_fixed_length() {
    for (right, tokens, requests) in [(true, 96, 5), (true, 256, 5), (false, 96, 5), (false, 96, 20)] {
        let (mut saved_state, mut done, mut time) = (String::new(), 0, 0.0);
        for _ in 0..requests {
            let mut controller = Controller::new(expected(POOL), &[Facts::default()], 32);
            tightwad_speculation::state::restore(&saved_state, &mut controller);
            let (tokens, took) = copied_passages(POOL, &mut controller, right, tokens);
            (done, time) = (done + tokens, time + took);
            saved_state = tightwad_speculation::state::save(&controller);
        }
        let all = done as f64 * cost(POOL, 1) / time;
        let best = [1, 2, 4, 8, 16, 32].map(|length| copied_at_fixed_length(POOL, length, tokens));
        let best = best.iter().map(|(done, took)| *done as f64 * cost(POOL, 1) / took).fold(0.0, f64::max);
        println!("right {right}, {requests} requests of {tokens}: {all} in all, {best} in hindsight");
        let min_speedup = if right { 0.9 * best } else { 0.97 };
        assert!(all >= min_speedup, "{all} of {best}");
    }
}
