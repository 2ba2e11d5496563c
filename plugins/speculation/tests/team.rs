//! Several drafters at once, on recorded cost curves: trees where they pay, and never slower.

mod recorded;

use recorded::{FLAT, SMOL, cost};
use tightwad_speculation::controller::{Controller, Facts, Plan};
use tightwad_speculation::cost::Verification;
use tightwad_speculation::tree::{Ballot, common};

/// Drafters on machines of their own: how often each is right, and milliseconds a token. The right token is 0
/// everywhere. With `alike`, all of them are right and wrong at the same places.
struct Fleet<'a> {
    right: &'a [f64],
    token: f64,
    alike: bool,
}

/// How often each way was taken.
#[derive(Debug, Default)]
struct Taken {
    alone: usize,
    together: usize,
    trees: usize,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

impl Fleet<'_> {
    /// What everyone says next, up to `max` tokens.
    fn says(&self, random: &mut Random, max: usize) -> Vec<Vec<u32>> {
        let luck: Vec<f64> = (0..max).map(|_| random.next()).collect();
        let mut said = Vec::new();
        for (index, right) in self.right.iter().enumerate() {
            let own: Vec<f64> =
                if self.alike { luck.clone() } else { (0..max).map(|_| random.next()).collect() };
            let wrong = if self.alike { 9 } else { index as u32 + 1 };
            said.push(own.into_iter().map(|luck| if luck < *right { 0 } else { wrong }).collect());
        }
        said
    }

    /// Times as fast as plain decoding, over `tokens` tokens.
    fn speedup(&self, curve: &[(usize, f64)], tokens: usize, team: bool) -> (f64, Taken) {
        let nanos = |ms: f64| (ms * 1e6) as u64;
        let facts = vec![Facts { token: nanos(self.token), ..Facts::default() }; self.right.len()];
        let known = Verification::expecting(nanos(cost(curve, 1)), nanos(cost(curve, 9) / 9.0), 0);
        let mut controller = Controller::new(known, &facts, 16);
        if team {
            controller = controller.with_team(&vec![false; facts.len()]);
        }
        let (mut random, mut taken) = (Random(0x9E37_79B9_7F4A_7C15), Taken::default());
        let (mut done, mut time) = (0, 0.0);
        while done < tokens {
            let mut asked = vec![false; facts.len() + 1];
            let remaining = (tokens - done) as u32;
            loop {
                match controller.plan(&asked, remaining) {
                    Plan::Decode(n) => {
                        let n = (n as usize).min(tokens - done);
                        let took = cost(curve, 1) * n as f64;
                        controller.decoded(n, nanos(took));
                        (done, time) = (done + n, time + took);
                        break;
                    }
                    Plan::Draft { drafter, max, .. } => {
                        let took = self.token * f64::from(max);
                        time += took;
                        controller.drafted(drafter, max as usize, nanos(took), false);
                        let said = self.says(&mut random, max as usize);
                        let brought = if Some(drafter) == controller.team() {
                            asked.fill(true);
                            taken.together += 1;
                            together(&mut controller, &said, curve, remaining, &mut taken)
                        } else {
                            asked[drafter] = true;
                            taken.alone += 1;
                            alone(&mut controller, drafter, &said[drafter], curve, remaining)
                        };
                        let Some((tokens, took)) = brought else { continue };
                        (done, time) = (done + tokens, time + took);
                        break;
                    }
                }
            }
        }
        (cost(curve, 1) * done as f64 / time, taken)
    }
}

fn alone(
    controller: &mut Controller,
    drafter: usize,
    said: &[u32],
    curve: &[(usize, f64)],
    remaining: u32,
) -> Option<(usize, f64)> {
    let probabilities = vec![0.8; said.len()];
    let length = controller.cut(drafter, &probabilities, remaining);
    let accepted = said[..length].iter().take_while(|token| **token == 0).count();
    let took = cost(curve, length + 1);
    (length > 0).then(|| {
        controller.verified(drafter, &probabilities[..length], accepted, (took * 1e6) as u64);
        (accepted + 1, took)
    })
}

fn together(
    controller: &mut Controller,
    said: &[Vec<u32>],
    curve: &[(usize, f64)],
    remaining: u32,
    taken: &mut Taken,
) -> Option<(usize, f64)> {
    let ballots: Vec<Ballot> = said
        .iter()
        .enumerate()
        .map(|(drafter, said)| controller.ballot(drafter, said.clone(), vec![0.8; said.len()]))
        .collect();
    let tree = controller.tree(&ballots, remaining);
    if tree.paths.is_empty() {
        return None;
    }
    taken.trees += usize::from(tree.paths.len() > 1);
    let truth = vec![0; 64];
    let accepted = tree.paths.iter().map(|path| common(path, &truth)).max().unwrap_or(0);
    let took = cost(curve, tree.rows);
    controller.grown(&ballots, &tree, &truth[..=accepted], accepted, (tree.rows, (took * 1e6) as u64));
    Some((accepted + 1, took))
}

#[test]
fn drafters_that_complement_each_other_are_asked_together_where_rows_are_cheap() {
    let fleet = Fleet { right: &[0.7, 0.7, 0.7], token: 1.0, alike: false };
    let (one, _) = fleet.speedup(FLAT, 2048, false);
    let (all, taken) = fleet.speedup(FLAT, 2048, true);
    println!("{all} with trees, {one} without: {taken:?}");
    assert!(all > 1.15 * one, "{all} with trees, {one} without");
    assert!(taken.trees > taken.alone, "{taken:?}");
}

#[test]
fn drafters_that_say_the_same_cost_nothing_more_together() {
    let fleet = Fleet { right: &[0.8, 0.8], token: 1.0, alike: true };
    let (one, _) = fleet.speedup(FLAT, 2048, false);
    let (all, taken) = fleet.speedup(FLAT, 2048, true);
    println!("{all} with trees, {one} without: {taken:?}");
    assert!(all > 0.96 * one, "{all} with trees, {one} without");
}

#[test]
fn useless_drafters_make_nothing_slower_together_either() {
    for (curve, right) in [(SMOL, [0.0, 0.0, 0.0]), (FLAT, [0.0, 0.0, 0.0]), (FLAT, [0.8, 0.0, 0.0])] {
        for tokens in [128, 512, 2048] {
            let fleet = Fleet { right: &right, token: 2.0, alike: false };
            let (one, _) = fleet.speedup(curve, tokens, false);
            let (all, taken) = fleet.speedup(curve, tokens, true);
            println!("{all} with trees, {one} without, {tokens} tokens: {taken:?}");
            assert!(all > 0.97, "{all}, {tokens} tokens: {taken:?}");
            assert!(all > 0.9 * one, "{all} with trees, {one} without, {tokens} tokens: {taken:?}");
        }
    }
}

#[test]
fn one_drafter_is_no_team() {
    let facts = [Facts { token: 1000, ..Facts::default() }, Facts::default()];
    let controller = Controller::new(Verification::default(), &facts, 32).with_team(&[true, true]);
    assert_eq!(controller.team(), None, "what costs nothing is asked alone in any case");
}
