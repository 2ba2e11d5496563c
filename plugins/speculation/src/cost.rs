//! What a forward pass of the target and a proposal of a drafter take, in nanoseconds.
//!
//! Invariant: estimates are positive and never fall with the length.

use tightwad_plugin_sdk::estimate::{Average, clip};

/// What one measurement leaves of the earlier ones.
const DECAY: f64 = 0.95;
/// A measurement counts at most this many times, and at least one part in this many, of what was
/// expected: a pause of the machine is not a cost.
const CLIP: f64 = 2.0;
/// The weight of what an earlier request measured.
const HANDED_ON: f64 = 6.0;
/// Nanoseconds in the unit of notes.
const UNIT: f64 = 1e6;

/// The cost of one row. Every measurement has the same weight at first; later ones fade.
#[derive(Debug, Clone, Copy, Default)]
struct Row {
    average: Average,
    /// The sum of the weights of all measurements.
    weight: f64,
}

impl Row {
    fn observe(&mut self, value: f64) {
        let value = if self.weight > 2.0 { self.average.clip(value, CLIP) } else { value };
        self.weight = self.weight * DECAY + 1.0;
        self.average.observe(value, 1.0 / self.weight);
    }

    fn get(&self) -> Option<f64> {
        self.average.get()
    }

    /// The sum of all weighted measurements, and the weight.
    fn numbers(&self) -> [f64; 2] {
        [self.get().unwrap_or(0.0) * self.weight / UNIT, self.weight]
    }

    fn set_numbers(&mut self, sum: f64, weight: f64) {
        if weight > 0.0 {
            let scale = (HANDED_ON / weight).min(1.0);
            *self = Self { average: Average::expecting(sum * UNIT / weight), weight: weight * scale };
        }
    }
}

/// `a + b * length`, by decaying least squares.
#[derive(Debug, Clone, Copy, Default)]
struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn add(&mut self, weight: f64, x: f64, y: f64) {
        self.weight += weight;
        self.x += weight * x;
        self.y += weight * y;
        self.xx += weight * x * x;
        self.xy += weight * x * y;
    }

    fn fade(&mut self) {
        for sum in [&mut self.weight, &mut self.x, &mut self.y, &mut self.xx, &mut self.xy] {
            *sum *= DECAY;
        }
    }

    /// In thousandths of a second, so that notes are short.
    fn numbers(&self) -> [f64; 5] {
        [self.weight, self.x, self.y / UNIT, self.xx, self.xy / UNIT]
    }

    fn set_numbers(&mut self, numbers: &[f64]) {
        if let [weight, x, y, xx, xy] = *numbers
            && weight > 0.0
        {
            let scale = (HANDED_ON / weight).min(1.0);
            *self = Self {
                weight: weight * scale,
                x: x * scale,
                y: y * UNIT * scale,
                xx: xx * scale,
                xy: xy * UNIT * scale,
            };
        }
    }

    fn at(&self, x: f64) -> f64 {
        let spread = self.weight * self.xx - self.x * self.x;
        let slope = if spread > 1e-9 { (self.weight * self.xy - self.x * self.y) / spread } else { 0.0 };
        let slope = slope.max(0.0);
        (self.y - slope * self.x) / self.weight.max(1e-9) + slope * x
    }
}

/// The target's cost as a function of the rows of a pass. One row has kernels of its own and is
/// kept apart from the line through all longer passes.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    one: Row,
    line: Line,
    /// Nanoseconds a row of a pass over nine, as the host expects; 0: unknown.
    row: f64,
    /// Nanoseconds of the way there and back, paid by every call.
    away: f64,
}

impl Verification {
    /// A target that is expected to take `token` nanoseconds for one row and `row` for each row of
    /// a longer pass (0: unknown), `away` nanoseconds from here and back.
    #[must_use]
    pub fn expecting(token: u64, row: u64, away: u64) -> Self {
        let mut one = Row::default();
        if token > 0 {
            one.observe(token as f64);
        }
        Self { one, line: Line::default(), row: row as f64, away: away as f64 }
    }

    /// The way there and back.
    #[must_use]
    pub fn away(&self) -> f64 {
        self.away
    }

    /// Notes plain decoding of `tokens` tokens in one call.
    pub fn decoded(&mut self, tokens: usize, nanoseconds: f64) {
        // The way was measured earlier; it is never all of what a call took.
        let there = (nanoseconds - self.away).max(0.2 * nanoseconds);
        self.one.observe(there / tokens as f64);
    }

    /// Notes a pass over `rows` rows.
    pub fn observe(&mut self, rows: usize, nanoseconds: f64) {
        if rows <= 1 {
            self.decoded(1, nanoseconds);
            return;
        }
        let mut value = nanoseconds;
        if self.line.weight > 2.0 {
            value = clip(value, self.cost(rows), CLIP);
        }
        self.line.fade();
        self.line.add(1.0, rows as f64, value);
    }

    /// Numbers of a note.
    pub(crate) const NUMBERS: usize = 7;

    pub(crate) fn numbers(&self) -> Vec<f64> {
        let mut numbers = self.one.numbers().to_vec();
        numbers.extend(self.line.numbers());
        numbers
    }

    pub(crate) fn set_numbers(&mut self, numbers: &[f64]) {
        if let [sum, weight, line @ ..] = numbers
            && *weight > 0.0
        {
            self.one.set_numbers(*sum, *weight);
            self.line.set_numbers(line);
        }
    }

    /// The cost of one token of plain decoding, the way not counted, once measured.
    #[must_use]
    pub fn one(&self) -> Option<f64> {
        self.one.get()
    }

    /// The cost of a call that verifies with `rows` rows; an optimistic guess where nothing is known.
    #[must_use]
    pub fn cost(&self, rows: usize) -> f64 {
        let one = self.one.get().unwrap_or(1.0) + self.away;
        if rows <= 1 {
            return one;
        }
        let mut line = self.line;
        // Where only one length was measured, the slope is the one from a single row to there.
        line.add(0.3, 1.0, one);
        match self.row {
            row if row > 0.0 => line.add(0.3, 9.0, 9.0 * row + self.away),
            _ => line.add(0.02, 9.0, 3.5 * one),
        }
        line.at(rows as f64).max(one)
    }
}

/// A drafter's cost: a fixed part, and one for each token.
#[derive(Debug, Clone, Default)]
pub struct Drafting {
    line: Line,
    /// What a token was said to take, and a call besides.
    expected: f64,
    away: f64,
}

impl Drafting {
    /// Numbers of a note.
    pub(crate) const NUMBERS: usize = 5;

    /// A drafter of which only the cost of a token is known, and of the way there and back.
    #[must_use]
    pub fn expecting(expected: f64, away: f64) -> Self {
        Self { line: Line::default(), expected, away }
    }

    /// Notes a proposal of `tokens` tokens.
    pub fn observe(&mut self, tokens: usize, nanoseconds: f64) {
        self.line.fade();
        self.line.add(1.0, tokens as f64, nanoseconds);
    }

    /// The cost of `tokens` tokens.
    #[must_use]
    pub fn cost(&self, tokens: usize) -> f64 {
        let mut line = self.line;
        line.add(0.1, 0.0, self.expected + self.away);
        line.add(0.1, 8.0, self.expected * 9.0 + self.away);
        line.at(tokens as f64).max(0.0)
    }

    pub(crate) fn numbers(&self) -> [f64; Self::NUMBERS] {
        self.line.numbers()
    }

    pub(crate) fn set_numbers(&mut self, numbers: &[f64]) {
        self.line.set_numbers(numbers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMOL: [(usize, f64); 9] = [
        (1, 7.4),
        (2, 13.4),
        (3, 16.5),
        (4, 20.5),
        (5, 23.9),
        (8, 35.0),
        (12, 50.0),
        (16, 64.0),
        (32, 126.0),
    ];

    #[test]
    fn fits_a_measured_curve() {
        let mut cost = Verification::default();
        for _ in 0..4 {
            SMOL.iter().for_each(|(rows, time)| cost.observe(*rows, *time));
        }
        for (rows, time) in SMOL {
            assert!((cost.cost(rows) / time - 1.0).abs() < 0.12, "{rows}: {}", cost.cost(rows));
        }
    }

    #[test]
    fn the_cost_of_a_row_is_the_weighted_mean_of_its_measurements() {
        let (mut row, mut sum, mut weight) = (Row::default(), 0.0, 0.0);
        for value in [7.4_f64, 7.1, 90.0, 7.9, 0.1, 6.0, 7.4, 7.4] {
            let mean: f64 = sum / weight;
            let clipped = if weight > 2.0 { value.clamp(mean / CLIP, mean * CLIP) } else { value };
            (sum, weight) = (sum * DECAY + clipped, weight * DECAY + 1.0);
            row.observe(value);
            assert!((row.get().unwrap_or(0.0) * weight / sum - 1.0).abs() < 1e-12);
        }
        let [noted, also] = row.numbers();
        let mut later = Row::default();
        later.set_numbers(noted, also);
        assert!((later.get().unwrap_or(0.0) * weight / sum - 1.0).abs() < 1e-12);
        assert_eq!(later.weight, HANDED_ON.min(weight));
    }

    #[test]
    fn one_pause_changes_little() {
        let mut cost = Verification::default();
        (0..20).for_each(|_| cost.observe(1, 7.4));
        cost.observe(1, 7400.0);
        assert!(cost.cost(1) < 9.0);
    }
}
