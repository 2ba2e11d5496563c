//! Simulates a big swarm with each piece order. Prints a table and draws a chart: the share of complete peers over
//! time.
//!
//! `cargo run --release -p tightwad-swarm-policy --example simulate -- --peers 1000 --pieces 200 --svg swarm.svg`
// An invalid argument panics.
#![allow(clippy::panic)]

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::fmt::Write;
use std::time::Instant;

use simulation::{Churn, Outcome, Peers, Scenario, run, single_pull};

const ORDERS: [(&str, &str); 3] = [("rarest", "#1a7f37"), ("random", "#b35900"), ("sequential", "#a40e26")];
/// Bytes per piece.
const PIECE: u64 = 1_000_000;
/// Width, height, left edge and top edge of the chart.
const FRAME: [f64; 4] = [640.0, 320.0, 60.0, 40.0];
/// The number of rows of the table.
const STEPS: usize = 20;

/// A third of the peers uploads 0.5 MB per second, a third 1 MB, a third 2 MB. They download four times that.
fn rates(peer: usize) -> (f64, f64) {
    let up = [0.5e6, 1e6, 2e6][peer % 3];
    (up, 4.0 * up)
}

struct Arguments(Vec<String>);

impl Arguments {
    fn text(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        let Some(text) = self.text(name) else { return default };
        text.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {text}"))
    }
}

fn scenario(arguments: &Arguments, order: &str) -> Scenario {
    let peers = arguments.number("--peers", 1000.0);
    let pieces = arguments.number("--pieces", 200.0);
    // A peer stays about five times as long as a pull takes. For each peer that leaves, another one comes.
    let mean_stay = arguments.number("--stays", 6.0 * pieces);
    Scenario {
        pieces: pieces as usize,
        piece_size: PIECE,
        peers: Peers {
            first: peers as usize,
            rates,
            known_peers: arguments.number("--knows", 20.0) as usize,
        },
        seeder: 4e6,
        seeder_copies: arguments.number("--seeder-sends", 2.0),
        max_fetches: arguments.number("--fetches", 2.0) as u32,
        max_uploads: arguments.number("--uploads", 6.0) as usize,
        announce_delay: 0.2,
        churn: (mean_stay > 0.0).then(|| Churn {
            mean_stay,
            arrivals_per_second: peers / mean_stay,
            quiet_seconds: 0.0,
        }),
        duration: arguments.number("--seconds", 4.0 * pieces),
        settings: Default::default(),
        seed: arguments.number("--seed", 1.0) as u64,
    }
    .order(order)
}

fn table(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let mut text = format!("{:>12}", "seconds");
    for (order, _) in ORDERS {
        let _ = write!(text, "{order:>12}");
    }
    text.push_str("   share of the peers that is complete this long after joining\n");
    for step in 1..=STEPS {
        let seconds = scenario.duration * step as f64 / STEPS as f64;
        let _ = write!(text, "{seconds:>12.0}");
        for outcome in outcomes {
            let _ = write!(text, "{:>11.1}%", 100.0 * outcome.share(seconds));
        }
        text.push('\n');
    }
    text
}

fn costs(outcomes: &[(Outcome, f64)]) {
    println!(
        "\n{:>12}{:>10}{:>10}{:>11}{:>12}{:>12}{:>10}",
        "order", "peers", "complete", "seeder", "calls", "per call", "ran"
    );
    for ((order, _), (outcome, ran)) in ORDERS.iter().zip(outcomes) {
        println!(
            "{order:>12}{:>10}{:>10}{:>10.0}M{:>12}{:>10.2}us{ran:>9.1}s",
            outcome.peers.len(),
            outcome.done(),
            outcome.seeder / 1e6,
            outcome.calls,
            outcome.call_time.as_secs_f64() * 1e6 / outcome.calls.max(1) as f64,
        );
    }
}

fn growth() {
    println!(
        "\n{:>12}{:>10}{:>12}{:>12}{:>12}   one pull, every peer answers at once",
        "pieces", "peers", "calls", "per call", "total"
    );
    for pieces in [200, 1000, 5000, 20_000] {
        for peers in [10, 100, 1000] {
            let cost = single_pull(pieces, peers, 0.5);
            let seconds = cost.call_time.as_secs_f64();
            println!(
                "{pieces:>12}{peers:>10}{:>12}{:>10.2}us{:>10.1}ms",
                cost.calls,
                seconds * 1e6 / f64::from(cost.calls),
                seconds * 1e3
            );
        }
    }
}

fn picture(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let [width, height, left, top] = FRAME;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 420" font-family="sans-serif" font-size="13">
<rect width="760" height="420" fill="white"/>
<text x="{left}" y="22">Share of {} peers that have all {} pieces, by time since joining</text>
"#,
        scenario.peers.first, scenario.pieces
    );
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let (x, y) = (left + width * share, top + height * (1.0 - share));
        let _ = writeln!(svg, r##"<path d="M{left} {y}h{width}" stroke="#ddd"/>"##);
        let _ = writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{:.0}%</text>"#,
            left - 6.0,
            y + 4.0,
            100.0 * share
        );
        let bottom = top + height + 18.0;
        let _ = writeln!(
            svg,
            r#"<text x="{x}" y="{bottom}" text-anchor="middle">{:.0} s</text>"#,
            scenario.duration * share
        );
    }
    curves(scenario, outcomes, &mut svg);
    svg + "</svg>\n"
}

fn curves(scenario: &Scenario, outcomes: &[Outcome], svg: &mut String) {
    let [width, height, left, top] = FRAME;
    for (index, ((order, colour), outcome)) in ORDERS.iter().zip(outcomes).enumerate() {
        let point = |step: u32| {
            let share = f64::from(step) / 200.0;
            format!(
                "{:.1},{:.1}",
                left + width * share,
                top + height * (1.0 - outcome.share(scenario.duration * share))
            )
        };
        let points: Vec<String> = (0..=200).map(point).collect();
        let points = points.join(" ");
        let _ =
            writeln!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#);
        let x = left + 120.0 * index as f64;
        let _ = writeln!(svg, r#"<text x="{x}" y="405" fill="{colour}">{order}</text>"#);
    }
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments(std::env::args().collect());
    let simulate = |(order, _): &(&str, &str)| {
        let before = Instant::now();
        let outcome = run(&scenario(&arguments, order));
        (outcome, before.elapsed().as_secs_f64())
    };
    let outcomes: Vec<(Outcome, f64)> = ORDERS.iter().map(simulate).collect();
    let only: Vec<Outcome> = outcomes.iter().map(|(outcome, _)| outcome.clone()).collect();
    let scenario = scenario(&arguments, "rarest");
    print!("{}", table(&scenario, &only));
    costs(&outcomes);
    if arguments.text("--growth") != Some("no") {
        growth();
    }
    if let Some(file) = arguments.text("--svg") {
        std::fs::write(file, picture(&scenario, &only))?;
    }
    Ok(())
}
