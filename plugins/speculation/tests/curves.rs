//! The controller on recorded cost curves, with drafters of known quality.

use tightwad_speculation::controller::{Controller, Plan};

const SMOL: &[(usize, f64)] = &[
    (1, 7.4),
    (2, 13.4),
    (3, 16.5),
    (4, 20.5),
    (5, 23.9),
    (8, 35.0),
    (12, 50.0),
    (16, 64.0),
    (32, 126.0),
    (65, 252.0),
];
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
/// A target that memory bandwidth bounds, as on a GPU.
const FLAT: &[(usize, f64)] = &[(1, 20.0), (8, 21.0), (32, 25.0), (65, 32.0)];

fn cost(curve: &[(usize, f64)], rows: usize) -> f64 {
    let after = curve.iter().position(|(at, _)| *at >= rows).unwrap_or(curve.len() - 1);
    let (x1, y1) = curve[after];
    let (x0, y0) = curve[after.saturating_sub(1)];
    if x0 == x1 { y1 } else { y0 + (y1 - y0) * (rows - x0) as f64 / (x1 - x0) as f64 }
}

/// A drafter: acceptance of each token, its claimed confidence, cost in ms a token.
struct Drafter {
    acceptance: f64,
    confidence: f32,
    cost: f64,
}

/// Milliseconds a token, plain decoding over this run: above 1 is faster than plain.
fn speedup(curve: &[(usize, f64)], drafters: &[Drafter], tokens: usize) -> f64 {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 11) as f64 / (1_u64 << 53) as f64
    };
    let nanos = |ms: f64| (ms * 1e6) as u64;
    let mut controller = Controller::new(&vec![false; drafters.len()], 32);
    let (mut done, mut time) = (0, 0.0);
    while done < tokens {
        let mut asked = vec![false; drafters.len()];
        let remaining = (tokens - done) as u32;
        loop {
            match controller.plan(&asked, remaining) {
                Plan::Decode(n) => {
                    let n = (n as usize).min(tokens - done);
                    let took = cost(curve, 1) * n as f64;
                    controller.decoded(n, nanos(took));
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
                        continue;
                    }
                    let accepted = (0..length).take_while(|_| random() < drafter.acceptance).count();
                    let took = cost(curve, length + 1);
                    controller.verified(index, &probabilities[..length], accepted, nanos(took));
                    done += accepted + 1;
                    time += took;
                    break;
                }
            }
        }
    }
    cost(curve, 1) * done as f64 / time
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
        assert!(reached > 0.9 * best, "{reached} of {best} at {acceptance}, {ms} ms");
    }
}

#[test]
fn a_useless_drafter_beside_a_good_one() {
    let useless = Drafter { acceptance: 0.0, confidence: 0.6, cost: 0.001 };
    let good = Drafter { acceptance: 0.85, confidence: 0.8, cost: 2.0 };
    assert!(speedup(FLAT, &[useless, good], 1024) > 1.8);
}
