//! Several drafters together on recorded cost curves: trees where they pay, and never slower.

mod recorded;

use recorded::{GPU_LIKE, SMOL, cost};
use tightwad_speculation::controller::{Controller, Facts, Plan};
use tightwad_speculation::cost::PassCost;
use tightwad_speculation::tree::{Ballot, common_prefix};

/// Drafters on machines of their own. `accuracy` is each drafter's share of right tokens; the right token is always
/// 0. `correlated`: all drafters are right and wrong at the same places.
struct Fleet<'a> {
    accuracy: &'a [f64],
    milliseconds_per_token: f64,
    correlated: bool,
}

/// The number of drafts of each kind.
#[derive(Debug, Default)]
struct DraftCounts {
    single: usize,
    races: usize,
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
    /// The next tokens of each drafter, up to `max_tokens`.
    fn proposals(&self, random: &mut Random, max_tokens: usize) -> Vec<Vec<u32>> {
        let luck: Vec<f64> = (0..max_tokens).map(|_| random.next()).collect();
        let mut drafts = Vec::new();
        for (index, accuracy) in self.accuracy.iter().enumerate() {
            let own: Vec<f64> =
                if self.correlated { luck.clone() } else { (0..max_tokens).map(|_| random.next()).collect() };
            let wrong = if self.correlated { 9 } else { index as u32 + 1 };
            drafts.push(own.into_iter().map(|luck| if luck < *accuracy { 0 } else { wrong }).collect());
        }
        drafts
    }

    /// The speed over that of plain decoding, for `tokens` tokens.
    fn speedup(&self, curve: &[(usize, f64)], tokens: usize, ensemble: bool) -> (f64, DraftCounts) {
        let nanos = |ms: f64| (ms * 1e6) as u64;
        let facts = vec![
            Facts { time_per_token: nanos(self.milliseconds_per_token), ..Facts::default() };
            self.accuracy.len()
        ];
        let pass_cost = PassCost::expecting(nanos(cost(curve, 1)), nanos(cost(curve, 9) / 9.0), 0);
        let mut controller = Controller::new(pass_cost, &facts, 16);
        if ensemble {
            controller = controller.with_ensemble(&vec![false; facts.len()]);
        }
        let (mut random, mut counts) = (Random(0x9E37_79B9_7F4A_7C15), DraftCounts::default());
        let (mut done, mut time) = (0, 0.0);
        while done < tokens {
            let mut asked = vec![false; facts.len() + 1];
            let remaining = (tokens - done) as u32;
            loop {
                match controller.plan(&asked, remaining) {
                    Plan::Decode(n) => {
                        let n = (n as usize).min(tokens - done);
                        let took = cost(curve, 1) * n as f64;
                        controller.record_decode(n, nanos(took));
                        (done, time) = (done + n, time + took);
                        break;
                    }
                    Plan::Draft { drafter, max_tokens, .. } => {
                        let took = self.milliseconds_per_token * f64::from(max_tokens);
                        time += took;
                        controller.record_draft(drafter, max_tokens as usize, nanos(took), false);
                        let drafts = self.proposals(&mut random, max_tokens as usize);
                        let committed = if Some(drafter) == controller.ensemble() {
                            asked.fill(true);
                            counts.races += 1;
                            verify_tree(&mut controller, &drafts, curve, remaining, &mut counts)
                        } else {
                            asked[drafter] = true;
                            counts.single += 1;
                            verify_draft(&mut controller, drafter, &drafts[drafter], curve, remaining)
                        };
                        let Some((tokens, took)) = committed else { continue };
                        (done, time) = (done + tokens, time + took);
                        break;
                    }
                }
            }
        }
        (cost(curve, 1) * done as f64 / time, counts)
    }
}

fn verify_draft(
    controller: &mut Controller,
    drafter: usize,
    draft: &[u32],
    curve: &[(usize, f64)],
    remaining: u32,
) -> Option<(usize, f64)> {
    let probabilities = vec![0.8; draft.len()];
    let length = controller.draft_length(drafter, &probabilities, remaining);
    let accepted = draft[..length].iter().take_while(|token| **token == 0).count();
    let took = cost(curve, length + 1);
    (length > 0).then(|| {
        controller.record_verification(drafter, &probabilities[..length], accepted, (took * 1e6) as u64);
        (accepted + 1, took)
    })
}

fn verify_tree(
    controller: &mut Controller,
    drafts: &[Vec<u32>],
    curve: &[(usize, f64)],
    remaining: u32,
    counts: &mut DraftCounts,
) -> Option<(usize, f64)> {
    let ballots: Vec<Ballot> = drafts
        .iter()
        .enumerate()
        .map(|(drafter, draft)| controller.ballot(drafter, draft.clone(), vec![0.8; draft.len()]))
        .collect();
    let tree = controller.tree(&ballots, remaining);
    if tree.paths.is_empty() {
        return None;
    }
    counts.trees += usize::from(tree.paths.len() > 1);
    let truth = vec![0; 64];
    let accepted = tree.paths.iter().map(|path| common_prefix(path, &truth)).max().unwrap_or(0);
    let took = cost(curve, tree.rows);
    controller.record_tree(&ballots, &tree, &truth[..=accepted], accepted, (tree.rows, (took * 1e6) as u64));
    Some((accepted + 1, took))
}

#[test]
fn complementary_drafters_gain_together_where_rows_are_cheap() {
    let fleet = Fleet { accuracy: &[0.7, 0.7, 0.7], milliseconds_per_token: 1.0, correlated: false };
    let (one, _) = fleet.speedup(GPU_LIKE, 2048, false);
    let (all, counts) = fleet.speedup(GPU_LIKE, 2048, true);
    println!("{all} with trees, {one} without: {counts:?}");
    assert!(all > 1.15 * one, "{all} with trees, {one} without");
    assert!(counts.trees > counts.single, "{counts:?}");
}

#[test]
fn equal_drafters_lose_nothing_together() {
    let fleet = Fleet { accuracy: &[0.8, 0.8], milliseconds_per_token: 1.0, correlated: true };
    let (one, _) = fleet.speedup(GPU_LIKE, 2048, false);
    let (all, counts) = fleet.speedup(GPU_LIKE, 2048, true);
    println!("{all} with trees, {one} without: {counts:?}");
    assert!(all > 0.96 * one, "{all} with trees, {one} without");
}

#[test]
fn useless_drafters_lose_nothing_together() {
    for (curve, accuracy) in
        [(SMOL, [0.0, 0.0, 0.0]), (GPU_LIKE, [0.0, 0.0, 0.0]), (GPU_LIKE, [0.8, 0.0, 0.0])]
    {
        for tokens in [128, 512, 2048] {
            let fleet = Fleet { accuracy: &accuracy, milliseconds_per_token: 2.0, correlated: false };
            let (one, _) = fleet.speedup(curve, tokens, false);
            let (all, counts) = fleet.speedup(curve, tokens, true);
            println!("{all} with trees, {one} without, {tokens} tokens: {counts:?}");
            assert!(all > 0.97, "{all}, {tokens} tokens: {counts:?}");
            assert!(all > 0.9 * one, "{all} with trees, {one} without, {tokens} tokens: {counts:?}");
        }
    }
}

#[test]
fn single_drafter_that_takes_time_is_not_an_ensemble() {
    let facts = [Facts { time_per_token: 1000, ..Facts::default() }, Facts::default()];
    let controller = Controller::new(PassCost::default(), &facts, 32).with_ensemble(&[true, true]);
    assert_eq!(controller.ensemble(), None, "free drafters are asked alone in any case");
}
