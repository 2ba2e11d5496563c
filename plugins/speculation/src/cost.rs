//! The cost of a forward pass of the target and of a drafter's draft, in nanoseconds.
//!
//! Invariant: estimates are positive and never fall with the length.

use tightwad_plugin_sdk::estimate::{Average, clip};

/// The weight that one measurement leaves to the earlier ones.
const DECAY: f64 = 0.95;
/// A measurement counts as at most the expected value times this, and at least the expected value divided by this: a
/// pause of the machine is not a cost.
const MAX_OUTLIER_FACTOR: f64 = 2.0;
/// The greatest weight of an earlier request's measurements.
const MAX_RESTORED_WEIGHT: f64 = 6.0;
/// Nanoseconds per unit of the saved state.
const NANOSECONDS_PER_UNIT: f64 = 1e6;

/// The cost of one row. The first measurements have equal weights; later the old ones fade.
#[derive(Debug, Clone, Copy, Default)]
struct SingleRow {
    average: Average,
    /// The sum of the weights of all measurements.
    weight: f64,
}

impl SingleRow {
    fn observe(&mut self, value: f64) {
        let value = if self.weight > 2.0 { self.average.clip(value, MAX_OUTLIER_FACTOR) } else { value };
        self.weight = self.weight * DECAY + 1.0;
        self.average.observe(value, 1.0 / self.weight);
    }

    fn get(&self) -> Option<f64> {
        self.average.get()
    }

    /// The sum of the weighted measurements, and the weight.
    fn saved_numbers(&self) -> [f64; 2] {
        [self.get().unwrap_or(0.0) * self.weight / NANOSECONDS_PER_UNIT, self.weight]
    }

    fn restore(&mut self, sum: f64, weight: f64) {
        if weight > 0.0 {
            let scale = (MAX_RESTORED_WEIGHT / weight).min(1.0);
            *self = Self {
                average: Average::expecting(sum * NANOSECONDS_PER_UNIT / weight),
                weight: weight * scale,
            };
        }
    }
}

/// `a + b * length`, by decaying least squares.
#[derive(Debug, Clone, Copy, Default)]
struct LinearFit {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl LinearFit {
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

    /// The saved state, in milliseconds, so that it is short.
    fn saved_numbers(&self) -> [f64; 5] {
        [self.weight, self.x, self.y / NANOSECONDS_PER_UNIT, self.xx, self.xy / NANOSECONDS_PER_UNIT]
    }

    fn restore(&mut self, numbers: &[f64]) {
        if let [weight, x, y, xx, xy] = *numbers
            && weight > 0.0
        {
            let scale = (MAX_RESTORED_WEIGHT / weight).min(1.0);
            *self = Self {
                weight: weight * scale,
                x: x * scale,
                y: y * NANOSECONDS_PER_UNIT * scale,
                xx: xx * scale,
                xy: xy * NANOSECONDS_PER_UNIT * scale,
            };
        }
    }

    fn at(&self, x: f64) -> f64 {
        let variance = self.weight * self.xx - self.x * self.x;
        let slope = if variance > 1e-9 { (self.weight * self.xy - self.x * self.y) / variance } else { 0.0 };
        let slope = slope.max(0.0);
        (self.y - slope * self.x) / self.weight.max(1e-9) + slope * x
    }
}

/// The target's cost as a function of the rows of a pass. A pass over one row runs other kernels, so its cost is kept
/// apart from the line through all longer passes.
#[derive(Debug, Clone, Default)]
pub struct PassCost {
    single_row: SingleRow,
    line: LinearFit,
    /// The host's estimate of the time per row in a pass over nine rows, in nanoseconds; 0: unknown.
    time_per_row: f64,
    /// The network round trip of every call, in nanoseconds.
    round_trip: f64,
}

impl PassCost {
    /// Creates the estimate from the host's: `time_per_token` nanoseconds for one row, `time_per_row` for each row
    /// of a longer pass (0: unknown), and `round_trip`.
    #[must_use]
    pub fn expecting(time_per_token: u64, time_per_row: u64, round_trip: u64) -> Self {
        let mut single_row = SingleRow::default();
        if time_per_token > 0 {
            single_row.observe(time_per_token as f64);
        }
        let (time_per_row, round_trip) = (time_per_row as f64, round_trip as f64);
        Self { single_row, line: LinearFit::default(), time_per_row, round_trip }
    }

    /// The network round trip, in nanoseconds.
    #[must_use]
    pub fn round_trip(&self) -> f64 {
        self.round_trip
    }

    /// Records plain decoding of `tokens` tokens in one call.
    pub fn record_decode(&mut self, tokens: usize, nanoseconds: f64) {
        // The round trip was measured earlier. It is never the whole time of a call.
        let computing = (nanoseconds - self.round_trip).max(0.2 * nanoseconds);
        self.single_row.observe(computing / tokens as f64);
    }

    /// Records a pass over `rows` rows.
    pub fn observe(&mut self, rows: usize, nanoseconds: f64) {
        if rows <= 1 {
            self.record_decode(1, nanoseconds);
            return;
        }
        let mut value = nanoseconds;
        if self.line.weight > 2.0 {
            value = clip(value, self.estimate(rows), MAX_OUTLIER_FACTOR);
        }
        self.line.fade();
        self.line.add(1.0, rows as f64, value);
    }

    /// Numbers of the saved state.
    pub(crate) const NUMBER_COUNT: usize = 7;

    pub(crate) fn saved_numbers(&self) -> Vec<f64> {
        let mut numbers = self.single_row.saved_numbers().to_vec();
        numbers.extend(self.line.saved_numbers());
        numbers
    }

    pub(crate) fn restore(&mut self, numbers: &[f64]) {
        if let [sum, weight, line @ ..] = numbers
            && *weight > 0.0
        {
            self.single_row.restore(*sum, *weight);
            self.line.restore(line);
        }
    }

    /// The cost of one token of plain decoding, without the network. `None`: not measured yet.
    #[must_use]
    pub fn token_cost(&self) -> Option<f64> {
        self.single_row.get()
    }

    /// The cost of a call that verifies with `rows` rows. Without measurements it is an optimistic guess.
    #[must_use]
    pub fn estimate(&self, rows: usize) -> f64 {
        let single = self.single_row.get().unwrap_or(1.0) + self.round_trip;
        if rows <= 1 {
            return single;
        }
        let mut line = self.line;
        // With measurements of one length only, the line goes through a single row.
        line.add(0.3, 1.0, single);
        match self.time_per_row {
            row if row > 0.0 => line.add(0.3, 9.0, 9.0 * row + self.round_trip),
            _ => line.add(0.02, 9.0, 3.5 * single),
        }
        line.at(rows as f64).max(single)
    }
}

/// A drafter's cost: a fixed part, and a part per token.
#[derive(Debug, Clone, Default)]
pub struct DraftCost {
    line: LinearFit,
    /// The expected nanoseconds per token.
    time_per_token: f64,
    /// The network round trip of every call, in nanoseconds.
    round_trip: f64,
}

impl DraftCost {
    /// Numbers of the saved state.
    pub(crate) const NUMBER_COUNT: usize = 5;

    /// Creates the estimate from the expected nanoseconds per token and the round trip.
    #[must_use]
    pub fn expecting(time_per_token: f64, round_trip: f64) -> Self {
        Self { line: LinearFit::default(), time_per_token, round_trip }
    }

    /// Records a draft of `tokens` tokens.
    pub fn observe(&mut self, tokens: usize, nanoseconds: f64) {
        self.line.fade();
        self.line.add(1.0, tokens as f64, nanoseconds);
    }

    /// The cost of `tokens` tokens.
    #[must_use]
    pub fn estimate(&self, tokens: usize) -> f64 {
        let mut line = self.line;
        line.add(0.1, 0.0, self.time_per_token + self.round_trip);
        line.add(0.1, 8.0, self.time_per_token * 9.0 + self.round_trip);
        line.at(tokens as f64).max(0.0)
    }

    pub(crate) fn saved_numbers(&self) -> [f64; Self::NUMBER_COUNT] {
        self.line.saved_numbers()
    }

    pub(crate) fn restore(&mut self, numbers: &[f64]) {
        self.line.restore(numbers);
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
    fn pass_cost_fits_a_measured_curve() {
        let mut cost = PassCost::default();
        for _ in 0..4 {
            SMOL.iter().for_each(|(rows, time)| cost.observe(*rows, *time));
        }
        for (rows, time) in SMOL {
            assert!((cost.estimate(rows) / time - 1.0).abs() < 0.12, "{rows}: {}", cost.estimate(rows));
        }
    }

    #[test]
    fn single_row_cost_is_the_weighted_mean_of_its_measurements() {
        let (mut row, mut sum, mut weight) = (SingleRow::default(), 0.0, 0.0);
        for value in [7.4_f64, 7.1, 90.0, 7.9, 0.1, 6.0, 7.4, 7.4] {
            let mean: f64 = sum / weight;
            let clipped = if weight > 2.0 {
                value.clamp(mean / MAX_OUTLIER_FACTOR, mean * MAX_OUTLIER_FACTOR)
            } else {
                value
            };
            (sum, weight) = (sum * DECAY + clipped, weight * DECAY + 1.0);
            row.observe(value);
            assert!((row.get().unwrap_or(0.0) * weight / sum - 1.0).abs() < 1e-12);
        }
        let [sum_in_units, saved_weight] = row.saved_numbers();
        let mut later = SingleRow::default();
        later.restore(sum_in_units, saved_weight);
        assert!((later.get().unwrap_or(0.0) * weight / sum - 1.0).abs() < 1e-12);
        assert_eq!(later.weight, MAX_RESTORED_WEIGHT.min(weight));
    }

    #[test]
    fn pause_of_the_machine_changes_the_pass_cost_little() {
        let mut cost = PassCost::default();
        (0..20).for_each(|_| cost.observe(1, 7.4));
        cost.observe(1, 7400.0);
        assert!(cost.estimate(1) < 9.0);
    }
}
