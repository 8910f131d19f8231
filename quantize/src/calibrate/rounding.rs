//! Sixteen rows rounded one input after another, each error fed to the inputs behind it.
//!
//! As in [`crate::group`], only `+ - * /` and comparisons decide bytes, in a fixed order.

use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::quant::tile::{GROUP, ROWS, groups};
use pocketgpt_runtime::quant::{pack_q4_block, pack_q8_block};

use super::factor::Feedback;

type Lanes = [f32; ROWS];

const TO_INTEGER: f32 = 12_582_912.0;

/// A grid, and which steps are tried on it.
struct Rule {
    low: f32,
    high: f32,
    /// Largest block scale.
    max_scale: f32,
    /// The largest weight of a row over its scale.
    row_steps: f32,
    /// Steps are tried where the largest weight of a group is this many.
    min_steps: f32,
    max_steps: f32,
    trials: u32,
    signed: bool,
}

/// The row's scale leaves room above 127 (255): errors fed into a group can make it larger than
/// any group was before.
const Q4: Rule = Rule {
    low: -8.0,
    high: 7.0,
    max_scale: 127.0,
    row_steps: 7.0 * 100.0,
    min_steps: 5.2,
    max_steps: 10.5,
    trials: 28,
    signed: true,
};
const Q8: Rule = Rule {
    low: -127.0,
    high: 127.0,
    max_scale: 255.0,
    row_steps: 127.0 * 200.0,
    min_steps: 104.0,
    max_steps: 128.0,
    trials: 16,
    signed: false,
};

/// Encodes sixteen rows. `weights` is `[cols][16]`, `out` a record.
pub(crate) fn encode(encoding: Encoding, weights: &[Lanes], feedback: &Feedback, out: &mut [u8]) {
    let rule = match encoding {
        Encoding::Q4 => &Q4,
        Encoding::Q8 => &Q8,
        _ => unreachable!("floats are not rounded to a grid"),
    };
    let cols = weights.len();
    let groups = groups(cols);
    let mut amax = [0.0f32; ROWS];
    weights.iter().for_each(|w| raise(&mut amax, w));
    let row_scales = amax.map(|amax| amax / rule.row_steps);
    let mut values = vec![0i8; ROWS * groups * GROUP];
    let mut scales = vec![0i32; ROWS * groups];
    let mut targets = weights.to_vec();
    for g in 0..groups {
        let (first, end) = (g * GROUP, cols.min((g + 1) * GROUP));
        let group =
            Group { weights: &weights[first..end], targets: &targets[first..end], feedback, first };
        let scale = group.best_scale(rule, &row_scales);
        let step = std::array::from_fn(|lane| scale[lane] * row_scales[lane]);
        let mut errors = [[0.0; ROWS]; GROUP];
        group.round(rule, &step, &mut errors, |j, q| {
            for lane in 0..ROWS {
                values[lane * groups * GROUP + first + j] = q[lane] as i8;
            }
        });
        for lane in 0..ROWS {
            scales[lane * groups + g] = scale[lane] as i32;
        }
        for (k, target) in targets.iter_mut().enumerate().skip(end) {
            let m = &feedback.m[k * feedback.n + first..][..end - first];
            for (m, error) in m.iter().zip(&errors) {
                (0..ROWS).for_each(|lane| target[lane] += m * error[lane]);
            }
        }
    }
    if rule.signed {
        let scales: Vec<i8> = scales.iter().map(|b| *b as i8).collect();
        pack_q4_block(&values, &scales, &row_scales, out);
    } else {
        let scales: Vec<u8> = scales.iter().map(|b| *b as u8).collect();
        pack_q8_block(&values, &scales, &row_scales, out);
    }
}

/// Inputs `first..` of sixteen rows.
struct Group<'a> {
    weights: &'a [Lanes],
    /// The weights with the errors of all groups before.
    targets: &'a [Lanes],
    feedback: &'a Feedback,
    first: usize,
}

impl Group<'_> {
    /// For each row the block scale with the smallest loss, as all rounding in the group goes.
    fn best_scale(&self, rule: &Rule, row_scales: &Lanes) -> Lanes {
        let mut amax = [0.0f32; ROWS];
        self.targets.iter().for_each(|t| raise(&mut amax, t));
        let (mut best, mut least) = ([0.0; ROWS], [f32::MAX; ROWS]);
        let mut errors = [[0.0; ROWS]; GROUP];
        let mut attempt = |sign: f32, steps: f32| {
            let scale: Lanes = std::array::from_fn(|lane| {
                let unit = row_scales[lane] * steps;
                let scale = if unit > 0.0 { amax[lane] / unit } else { 0.0 };
                let scale = if scale < rule.max_scale { scale } else { rule.max_scale };
                sign * ((scale + TO_INTEGER) - TO_INTEGER)
            });
            let step = std::array::from_fn(|lane| scale[lane] * row_scales[lane]);
            let loss = self.round(rule, &step, &mut errors, |_, _| ());
            for lane in 0..ROWS {
                if loss[lane] < least[lane] {
                    (least[lane], best[lane]) = (loss[lane], scale[lane]);
                }
            }
        };
        for trial in 0..rule.trials {
            let part = trial as f32 / (rule.trials - 1) as f32;
            let steps = rule.min_steps + (rule.max_steps - rule.min_steps) * part;
            attempt(1.0, steps);
            if rule.signed {
                attempt(-1.0, steps);
            }
        }
        best
    }

    /// Rounds the group with these steps; gives the loss and what each weight is off.
    #[inline]
    fn round(
        &self,
        rule: &Rule,
        step: &Lanes,
        errors: &mut [Lanes; GROUP],
        mut each: impl FnMut(usize, &Lanes),
    ) -> Lanes {
        let inverse = step.map(|step| if step == 0.0 { 0.0 } else { 1.0 / step });
        let mut loss = [0.0; ROWS];
        for (j, (weight, target)) in self.weights.iter().zip(self.targets).enumerate() {
            let row = &self.feedback.m[(self.first + j) * self.feedback.n + self.first..][..j];
            let mut target = *target;
            for (m, error) in row.iter().zip(errors.iter()) {
                (0..ROWS).for_each(|lane| target[lane] += m * error[lane]);
            }
            let counts = self.feedback.d[self.first + j];
            let mut q = [0.0; ROWS];
            for lane in 0..ROWS {
                let value = target[lane] * inverse[lane];
                let value = if value > rule.low { value } else { rule.low };
                let value = if value < rule.high { value } else { rule.high };
                q[lane] = (value + TO_INTEGER) - TO_INTEGER;
                let stored = q[lane] * step[lane];
                let off = target[lane] - stored;
                loss[lane] += counts * (off * off);
                errors[j][lane] = weight[lane] - stored;
            }
            each(j, &q);
        }
        loss
    }
}

fn raise(amax: &mut Lanes, values: &Lanes) {
    for (amax, value) in amax.iter_mut().zip(values) {
        *amax = if value.abs() > *amax { value.abs() } else { *amax };
    }
}
