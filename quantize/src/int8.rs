//! Symmetric 8-bit quantization of one row: `w = q · b · s`, q in −127..=127, b in 0..=255.
//!
//! With 255 levels a group's error hardly depends on the step but by chance: among the steps a
//! few percent above the smallest that cuts nothing off, the luckiest is about 1 dB better.

use pocketgpt_runtime::quant::tile::GROUP;

use crate::group::{Grid, Group};

const GRID: Grid = Grid { low: -127.0, high: 127.0 };
/// Block scale of the group with the largest weight: above it there is room to search.
const LARGEST_GROUP_SCALE: f64 = 232.0;
/// Largest block scale.
const MAX_SCALE: f64 = 255.0;
/// Steps are looked for where the largest weight is this many steps.
const MIN_STEPS: f64 = 114.0;
const MAX_STEPS: f64 = 129.0;

/// Quantizes a row of `cols` weights; `values` and `scales` have one element per input of all
/// groups and one per group. Gives the row's scale.
pub fn quantize_row(
    row: &[f32],
    importance: Option<&[f32]>,
    values: &mut [i8],
    scales: &mut [u8],
) -> f32 {
    let amax = row.iter().fold(0.0, |max: f32, x| if x.abs() > max { x.abs() } else { max });
    let row_scale = (f64::from(amax) / (127.0 * LARGEST_GROUP_SCALE)) as f32;
    for (g, (scale, values)) in scales.iter_mut().zip(values.chunks_exact_mut(GROUP)).enumerate() {
        let group = Group::new(row, importance, g);
        *scale = quantize_group(&group, row_scale, values);
    }
    row_scale
}

/// Quantizes a group; gives its block scale.
fn quantize_group(group: &Group, row_scale: f32, values: &mut [i8]) -> u8 {
    values.fill(0);
    if group.amax == 0.0 || row_scale == 0.0 {
        return 0;
    }
    // One step of the block scale, as a fraction of the largest weight.
    let unit = f64::from(row_scale) / f64::from(group.amax);
    let first = (1.0 / (MAX_STEPS * unit)).clamp(1.0, MAX_SCALE) as u8;
    let last = (1.0 / (MIN_STEPS * unit) + 1.0).clamp(1.0, MAX_SCALE) as u8;
    let step = |scale: u8| (f64::from(scale) * unit) as f32;
    let (mut best_error, mut best) = (group.energy(), 0);
    // Where twice the weight is less than a step, all integers are zero, whatever the scale.
    if unit < 2.0 {
        for scale in first..=last {
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
