//! Symmetric 4-bit quantization of one row: `w = q · b · s`, q in −8..=7, b in −127..=127.
//!
//! The row's scale `s` lets the group with the largest step use b = ±127. Given `s`, every b
//! that can be best for a group is tried, each with its own rounding: no search leaves a smaller
//! squared error on this grid.

use pocketgpt_runtime::quant::tile::GROUP;

use crate::group::{Grid, Group};

const GRID: Grid = Grid { low: -8.0, high: 7.0 };
/// Largest block scale.
const MAX_SCALE: f64 = 127.0;
/// Steps are looked for where the largest weight would be this many steps: above 8, it is cut
/// off in favour of the others.
const MIN_STEPS: f64 = 5.0;
const MAX_STEPS: f64 = 11.0;
/// Steps tried for the row's scale, per sign.
const TRIALS: u32 = 24;

/// Quantizes a row of `cols` weights; `values` and `scales` have one element per input of all
/// groups and one per group. Gives the row's scale.
pub fn quantize_row(
    row: &[f32],
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [i8],
) -> f32 {
    let row_scale = row_scale(row, importance, scales.len());
    for (g, (scale, values)) in scales.iter_mut().zip(values.chunks_exact_mut(GROUP)).enumerate() {
        let group = Group::new(row, importance, g);
        *scale = quantize_group(&group, row_scale, values);
    }
    row_scale
}

/// The scale at which the largest step of all groups is 127.
fn row_scale(row: &[f32], importance: Option<&[f32]>, groups: usize) -> f32 {
    let mut largest = 0.0;
    for g in 0..groups {
        let group = Group::new(row, importance, g);
        // A group whose step cannot be the largest is not searched.
        if f64::from(group.amax) / MIN_STEPS > largest {
            let step = f64::from(group.amax) * best_step(&group);
            largest = if step > largest { step } else { largest };
        }
    }
    (largest / MAX_SCALE) as f32
}

/// Magnitude of the step with the smallest error, as a fraction of the largest weight.
fn best_step(group: &Group) -> f64 {
    let (mut best_gain, mut best) = (0.0, 1.0 / 8.0);
    let mut try_inverse = |inverse: f32| {
        let (xq, qq) = group.moments(GRID, inverse);
        // With the best step for these integers the error falls by xq² / qq.
        if qq > 0.0 && xq * xq / qq > best_gain {
            best_gain = xq * xq / qq;
            best = xq / qq;
        }
    };
    for trial in 0..=TRIALS {
        let part = f64::from(trial) / f64::from(TRIALS);
        let inverse = (MIN_STEPS + (MAX_STEPS - MIN_STEPS) * part) as f32;
        try_inverse(inverse);
        try_inverse(-inverse);
    }
    let best = f64::from(best);
    (if best < 0.0 { -best } else { best }).min(1.0 / MIN_STEPS)
}

/// Quantizes a group; gives its block scale.
fn quantize_group(group: &Group, row_scale: f32, values: &mut [i8]) -> i8 {
    values.fill(0);
    if group.amax == 0.0 || row_scale == 0.0 {
        return 0;
    }
    // One step of the block scale, as a fraction of the largest weight.
    let unit = f64::from(row_scale) / f64::from(group.amax);
    let first = (1.0 / (MAX_STEPS * unit)).clamp(1.0, MAX_SCALE) as i8;
    let last = (1.0 / (MIN_STEPS * unit) + 1.0).clamp(1.0, MAX_SCALE) as i8;
    let step = |scale: i8| (f64::from(scale) * unit) as f32;
    let (mut best_error, mut best) = (group.energy(), 0);
    // Where twice the weight is less than a step, all integers are zero, whatever the scale.
    if unit < 2.0 {
        for scale in (first..=last).flat_map(|b| [b, -b]) {
            let error = group.error(GRID, step(scale));
            if error < best_error {
                (best_error, best) = (error, scale);
            }
        }
    }
    if best != 0 {
        group.integers(GRID, step(best), values);
    }
    best
}
