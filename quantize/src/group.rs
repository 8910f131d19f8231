//! Thirty-two weights of one row, and the squared error of rounding them to a grid.
//!
//! What is here decides bytes, so it uses `+ - * /` and comparisons only: every machine computes
//! the same. Sums run in eight lanes and end in one fixed tree, which compilers turn into vector
//! instructions without changing the result.

use pocketgpt_runtime::quant::tile::GROUP;

const LANES: usize = 8;
/// Adding and subtracting 1.5 · 2²³ rounds to the nearest integer, ties to even.
const TO_INTEGER: f32 = 12_582_912.0;

/// The integers of a grid.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Smallest.
    pub low: f32,
    /// Largest.
    pub high: f32,
}

/// A group, divided by its largest magnitude so that squares neither overflow nor underflow.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The weights divided by `amax`; zeros behind the last input of the row.
    x: [f32; GROUP],
    /// What a squared error counts.
    importance: [f32; GROUP],
    /// Largest magnitude; 0 if all weights are.
    pub amax: f32,
}

impl Group {
    /// Takes group `g` of a row; `importance` is one weight per input, finite and not negative.
    pub fn new(row: &[f32], importance: Option<&[f32]>, g: usize) -> Self {
        let range = g * GROUP..row.len().min((g + 1) * GROUP);
        let mut group = Self { x: [0.0; GROUP], importance: [1.0; GROUP], amax: 0.0 };
        group.x[..range.len()].copy_from_slice(&row[range.clone()]);
        if let Some(importance) = importance {
            group.importance[..range.len()].copy_from_slice(&importance[range]);
        }
        group.amax =
            group.x.iter().fold(0.0, |max: f32, x| if x.abs() > max { x.abs() } else { max });
        if group.amax > 0.0 {
            for x in &mut group.x {
                *x /= group.amax;
            }
        }
        group
    }

    /// Error of storing nothing.
    pub fn energy(&self) -> f32 {
        self.sum(|x, importance| importance * (x * x))
    }

    /// Error of the grid with this step, a fraction of `amax`: `Σ importance (x − q step)²`.
    #[inline]
    pub fn error(&self, grid: Grid, step: f32) -> f32 {
        let inverse = 1.0 / step;
        self.sum(|x, importance| {
            let error = x - nearest(grid, x * inverse) * step;
            importance * (error * error)
        })
    }

    /// `Σ importance x q` and `Σ importance q²` for the integers of the grid with this inverse
    /// step: their quotient is the best step for these integers.
    #[inline]
    pub fn moments(&self, grid: Grid, inverse: f32) -> (f32, f32) {
        let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for at in (0..GROUP).step_by(LANES) {
            for lane in 0..LANES {
                let (x, importance) = (self.x[at + lane], self.importance[at + lane]);
                let q = nearest(grid, x * inverse);
                let weighted = importance * q;
                xq[lane] += weighted * x;
                qq[lane] += weighted * q;
            }
        }
        (tree(xq), tree(qq))
    }

    /// The integers of the grid with this step.
    pub fn integers(&self, grid: Grid, step: f32, out: &mut [i8]) {
        let inverse = 1.0 / step;
        for (q, x) in out.iter_mut().zip(self.x) {
            *q = nearest(grid, x * inverse) as i8;
        }
    }

    #[inline(always)]
    fn sum(&self, term: impl Fn(f32, f32) -> f32) -> f32 {
        let mut sums = [0.0; LANES];
        for at in (0..GROUP).step_by(LANES) {
            for lane in 0..LANES {
                sums[lane] += term(self.x[at + lane], self.importance[at + lane]);
            }
        }
        tree(sums)
    }
}

/// The nearest integer of the grid. Written as comparisons, not `clamp` and `round`, because
/// these are single vector instructions on every CPU.
#[inline(always)]
fn nearest(grid: Grid, value: f32) -> f32 {
    let value = if value > grid.low { value } else { grid.low };
    let value = if value < grid.high { value } else { grid.high };
    (value + TO_INTEGER) - TO_INTEGER
}

#[inline(always)]
fn tree(s: [f32; LANES]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}
