//! A big swarm, simulated in each order: what share of the peers is done after how long, as a table and as a picture.
//!
//! `cargo run --release -p tightwad-swarm-policy --example simulate -- --peers 1000 --pieces 200 --svg swarm.svg`
// What is wrong with an argument is said by stopping.
#![allow(clippy::panic)]

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use std::fmt::Write;
use std::time::Instant;

use simulation::{Churn, Outcome, Peers, Plan, alone, run};

const ORDERS: [(&str, &str); 3] = [("rarest", "#1a7f37"), ("random", "#b35900"), ("sequential", "#a40e26")];
/// Bytes of a piece.
const PIECE: u64 = 1_000_000;
/// Width and height of the curves, and where they are.
const FRAME: [f64; 4] = [640.0, 320.0, 60.0, 40.0];
/// How many times are shown.
const STEPS: usize = 20;

/// A third has half a megabyte a second up, a third one, a third two; down is four times that.
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

    fn number(&self, name: &str, otherwise: f64) -> f64 {
        let Some(text) = self.text(name) else { return otherwise };
        text.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {text}"))
    }
}

fn plan(arguments: &Arguments, order: &str) -> Plan {
    let peers = arguments.number("--peers", 1000.0);
    let pieces = arguments.number("--pieces", 200.0);
    // About five times as long as a pull takes; for each peer that leaves another one comes.
    let stays = arguments.number("--stays", 6.0 * pieces);
    Plan {
        pieces: pieces as usize,
        piece: PIECE,
        peers: Peers { first: peers as usize, rates, knows: arguments.number("--knows", 20.0) as usize },
        seeder: 4e6,
        seeder_sends: arguments.number("--seeder-sends", 2.0),
        fetches: arguments.number("--fetches", 2.0) as u32,
        uploads: arguments.number("--uploads", 6.0) as usize,
        delay: 0.2,
        churn: (stays > 0.0).then(|| Churn { stays, come: peers / stays, from: 0.0 }),
        until: arguments.number("--seconds", 4.0 * pieces),
        settings: Default::default(),
        seed: arguments.number("--seed", 1.0) as u64,
    }
    .order(order)
}

fn table(plan: &Plan, outcomes: &[Outcome]) -> String {
    let mut text = format!("{:>12}", "seconds");
    for (order, _) in ORDERS {
        let _ = write!(text, "{order:>12}");
    }
    text.push_str("   share of the peers that is done so long after it came\n");
    for step in 1..=STEPS {
        let seconds = plan.until * step as f64 / STEPS as f64;
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
        "order", "peers", "done", "seeder", "calls", "a call", "ran"
    );
    for ((order, _), (outcome, ran)) in ORDERS.iter().zip(outcomes) {
        println!(
            "{order:>12}{:>10}{:>10}{:>10.0}M{:>12}{:>10.2}us{ran:>9.1}s",
            outcome.peers.len(),
            outcome.done(),
            outcome.seeder / 1e6,
            outcome.calls,
            outcome.thought.as_secs_f64() * 1e6 / outcome.calls.max(1) as f64,
        );
    }
}

fn growth() {
    println!(
        "\n{:>12}{:>10}{:>12}{:>12}{:>12}   one pull, everything answers at once",
        "pieces", "peers", "calls", "a call", "in all"
    );
    for pieces in [200, 1000, 5000, 20_000] {
        for peers in [10, 100, 1000] {
            let cost = alone(pieces, peers, 0.5);
            let seconds = cost.thought.as_secs_f64();
            println!(
                "{pieces:>12}{peers:>10}{:>12}{:>10.2}us{:>10.1}ms",
                cost.calls,
                seconds * 1e6 / f64::from(cost.calls),
                seconds * 1e3
            );
        }
    }
}

fn picture(plan: &Plan, outcomes: &[Outcome]) -> String {
    let [width, height, left, top] = FRAME;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 420" font-family="sans-serif" font-size="13">
<rect width="760" height="420" fill="white"/>
<text x="{left}" y="22">Share of {} peers that has all {} pieces, by time since it came</text>
"#,
        plan.peers.first, plan.pieces
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
            plan.until * share
        );
    }
    curves(plan, outcomes, &mut svg);
    svg + "</svg>\n"
}

fn curves(plan: &Plan, outcomes: &[Outcome], svg: &mut String) {
    let [width, height, left, top] = FRAME;
    for (index, ((order, colour), outcome)) in ORDERS.iter().zip(outcomes).enumerate() {
        let point = |step: u32| {
            let share = f64::from(step) / 200.0;
            format!(
                "{:.1},{:.1}",
                left + width * share,
                top + height * (1.0 - outcome.share(plan.until * share))
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
        let outcome = run(&plan(&arguments, order));
        (outcome, before.elapsed().as_secs_f64())
    };
    let outcomes: Vec<(Outcome, f64)> = ORDERS.iter().map(simulate).collect();
    let only: Vec<Outcome> = outcomes.iter().map(|(outcome, _)| outcome.clone()).collect();
    let plan = plan(&arguments, "rarest");
    print!("{}", table(&plan, &only));
    costs(&outcomes);
    if arguments.text("--growth") != Some("no") {
        growth();
    }
    if let Some(file) = arguments.text("--svg") {
        std::fs::write(file, picture(&plan, &only))?;
    }
    Ok(())
}
