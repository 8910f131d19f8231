//! Symmetric 4-bit and 3-bit quantization of one row: `w = q · b · s`, q in −8..=7 or −4..=3, b in
//! −127..=127.
//!
//! The row's scale `s` lets the group with the largest step use b = ±127. Given `s`, every b in
//! the range where a group's best one is gets tried, each with its own rounding: a wider range
//! gains less than 0.01 dB.

use pocketgpt_runtime::quant::tile::GROUP;

use crate::group::{Grid, Group};

/// Largest block scale.
const MAX_SCALE: f64 = 127.0;

/// A grid, and which steps are tried on it.
struct Rule {
    grid: Grid,
    /// Steps are looked for where the largest weight would be this many steps: with more than the
    /// grid has, it is cut off in favour of the others; with as few as the least, weights that lie on
    /// a coarser grid already fit exactly.
    min_steps: f64,
    max_steps: f64,
}

const Q4: Rule = Rule { grid: Grid { low: -8.0, high: 7.0 }, min_steps: 5.0, max_steps: 11.0 };
const Q3: Rule = Rule { grid: Grid { low: -4.0, high: 3.0 }, min_steps: 2.0, max_steps: 5.5 };

/// Steps tried for the row's scale, per sign.
const TRIALS: u32 = 24;

/// Quantizes a row of `cols` weights to 4 bits; `values` and `scales` have one element per input of all
/// groups and one per group. Gives the row's scale.
pub fn quantize_row_q4(
    row: &[f32],
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [i8],
) -> f32 {
    quantize_row(&Q4, row, importance, values, scales)
}

/// The same to 3 bits.
pub fn quantize_row_q3(
    row: &[f32],
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [i8],
) -> f32 {
    quantize_row(&Q3, row, importance, values, scales)
}

fn quantize_row(
    rule: &Rule,
    row: &[f32],
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [i8],
) -> f32 {
    let row_scale = row_scale(rule, row, importance, scales.len());
    for (g, (scale, values)) in scales.iter_mut().zip(values.chunks_exact_mut(GROUP)).enumerate() {
        let group = Group::new(row, importance, g);
        *scale = quantize_group(rule, &group, row_scale, values);
    }
    row_scale
}

/// The scale at which the largest step of all groups is 127.
fn row_scale(rule: &Rule, row: &[f32], importance: Option<&[f32]>, groups: usize) -> f32 {
    let mut largest = 0.0;
    for g in 0..groups {
        let group = Group::new(row, importance, g);
        // A group whose step cannot be the largest is not searched.
        if f64::from(group.amax) / rule.min_steps > largest {
            let step = f64::from(group.amax) * best_step(rule, &group);
            largest = if step > largest { step } else { largest };
        }
    }
    (largest / MAX_SCALE) as f32
}

/// Magnitude of the step with the smallest error, as a fraction of the largest weight.
fn best_step(rule: &Rule, group: &Group) -> f64 {
    let (mut best_gain, mut best) = (0.0, -1.0 / rule.grid.low);
    let mut try_inverse = |inverse: f32| {
        let (xq, qq) = group.moments(rule.grid, inverse);
        // With the best step for these integers the error falls by xq² / qq.
        if qq > 0.0 && xq * xq / qq > best_gain {
            best_gain = xq * xq / qq;
            best = xq / qq;
        }
    };
    for trial in 0..=TRIALS {
        let part = f64::from(trial) / f64::from(TRIALS);
        let inverse = (rule.min_steps + (rule.max_steps - rule.min_steps) * part) as f32;
        try_inverse(inverse);
        try_inverse(-inverse);
    }
    let best = f64::from(best);
    (if best < 0.0 { -best } else { best }).min(1.0 / rule.min_steps)
}

/// Quantizes a group; gives its block scale.
fn quantize_group(rule: &Rule, group: &Group, row_scale: f32, values: &mut [i8]) -> i8 {
    values.fill(0);
    if group.amax == 0.0 || row_scale == 0.0 {
        return 0;
    }
    // One step of the block scale, as a fraction of the largest weight.
    let unit = f64::from(row_scale) / f64::from(group.amax);
    let first = (1.0 / (rule.max_steps * unit)).clamp(1.0, MAX_SCALE) as i8;
    let last = (1.0 / (rule.min_steps * unit) + 1.0).clamp(1.0, MAX_SCALE) as i8;
    let step = |scale: i8| (f64::from(scale) * unit) as f32;
    let (mut best_error, mut best) = (group.energy(), 0);
    // Where twice the weight is less than a step, all integers are zero, whatever the scale.
    if unit < 2.0 {
        for scale in (first..=last).flat_map(|b| [b, -b]) {
            let error = group.error(rule.grid, step(scale));
            if error < best_error {
                (best_error, best) = (error, scale);
            }
        }
    }
    if best != 0 {
        group.integers(rule.grid, step(best), values);
    }
    best
}
