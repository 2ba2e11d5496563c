//! Recorded cost curves: the rows of a pass, and its milliseconds.

/// SmolLM2 on two cores: the cost rises with every row.
pub const SMOL: &[(usize, f64)] = &[
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
/// A target whose passes are bound by memory bandwidth, as on a GPU.
pub const GPU_LIKE: &[(usize, f64)] = &[(1, 20.0), (8, 21.0), (32, 25.0), (65, 32.0)];

/// The milliseconds of a pass, interpolated between the recorded points.
pub fn cost(curve: &[(usize, f64)], rows: usize) -> f64 {
    let after = curve.iter().position(|(at, _)| *at >= rows).unwrap_or(curve.len() - 1);
    let (x1, y1) = curve[after];
    let (x0, y0) = curve[after.saturating_sub(1)];
    if x0 == x1 { y1 } else { y0 + (y1 - y0) * (rows - x0) as f64 / (x1 - x0) as f64 }
}
