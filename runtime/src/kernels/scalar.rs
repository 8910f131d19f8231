//! The specification: plain loops, on any CPU.
//!
//! What other sets must reproduce bit for bit is the order of the floating-point operations here.

use super::{Behind, Columns, FloatLhs, QuantLhs, Table, VALUE_WEIGHT_MAX};
use crate::config::Activation;
use crate::format::Encoding;
use crate::isa::Isa;
use crate::math::{self, One, ROUND_MAGIC, Simd, fma, max_tree, sum_tree};
use crate::quant::tile::{self, GROUP, QuantRecord, ROWS, q3_value, q4_index, q8_index};

pub(super) static TABLE: Table = Table {
    isa: Isa::Scalar,
    matmul_q8,
    matmul_q4,
    matmul_q3,
    matmul_f32,
    matmul_f16,
    quantize,
    layer_norm,
    gelu_new: |x, bias| activate(Activation::GeluNew, x, bias),
    gelu: |x, bias| activate(Activation::Gelu, x, bias),
    relu: |x, bias| activate(Activation::Relu, x, bias),
    silu: |x, bias| activate(Activation::Silu, x, bias),
    add,
    add_residual,
    scores_f32: |query, keys, scale, scores| scores_float(query, keys, |k| k, scale, scores),
    scores_f16: |query, keys, scale, scores| scores_float(query, keys, f16_to_f32, scale, scores),
    scores_q8,
    softmax,
    values_f32: |weights, scale, values, out| values_float(weights, scale, values, |v| v, out),
    values_f16: |weights, scale, values, out| values_float(weights, scale, values, f16_to_f32, out),
    weigh_values,
    values_q8,
};

/// The number that these f16 bits are.
pub fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32_const()
}

/// The f16 bits nearest to a number, ties to even.
pub fn f32_to_f16(x: f32) -> u16 {
    half::f16::from_f32_const(x).to_bits()
}

/// Each output row sums its groups in order: the integer sum of a group is exact, becomes an f32,
/// and is added with one rounding, times the product of block scale and activation scale. The row
/// scale comes last.
fn matmul_quant(
    lhs: &QuantLhs<'_>,
    records: &[u8],
    encoding: Encoding,
    dst: &mut Columns<'_>,
    weight: fn(&[u8], usize, usize) -> i32,
    block_scale: fn(u8) -> f32,
) {
    let (groups, cols) = (lhs.groups, lhs.groups * GROUP);
    let record_len = tile::record_len(encoding, cols);
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let record = QuantRecord::new(record, groups);
        for t in 0..lhs.m {
            let q = &lhs.q[t * cols..(t + 1) * cols];
            let out = &mut dst.row_mut(t)[block * ROWS..(block + 1) * ROWS];
            for (lane, out) in out.iter_mut().enumerate() {
                let mut acc = 0.0f32;
                for g in 0..groups {
                    let sum: i32 = (g * GROUP..(g + 1) * GROUP)
                        .map(|col| i32::from(q[col]) * weight(record.weights(), lane, col))
                        .sum();
                    let scale = block_scale(record.block_scales(g)[lane]);
                    acc = fma(sum as f32, scale * lhs.scales[t * groups + g], acc);
                }
                *out = acc * record.row_scale(lane);
            }
        }
    }
}

fn matmul_q8(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let weight = |w: &[u8], lane, col| i32::from(w[q8_index(lane, col)] as i8);
    matmul_quant(lhs, records, Encoding::Q8, dst, weight, f32::from);
}

fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let weight = |w: &[u8], lane, col| {
        let (byte, high) = q4_index(lane, col);
        i32::from(if high { w[byte] >> 4 } else { w[byte] & 15 }) - 8
    };
    matmul_quant(lhs, records, Encoding::Q4, dst, weight, |b| f32::from(b as i8));
}

fn matmul_q3(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    let weight = |w: &[u8], lane, col| i32::from(q3_value(w, lane, col)) - 4;
    matmul_quant(lhs, records, Encoding::Q3, dst, weight, |b| f32::from(b as i8));
}

/// Each output row sums its inputs in order with fused multiply-add.
fn matmul_float<const WIDTH: usize>(
    lhs: &FloatLhs<'_>,
    records: &[u8],
    encoding: Encoding,
    dst: &mut Columns<'_>,
    number: fn([u8; WIDTH]) -> f32,
) {
    let record_len = tile::record_len(encoding, lhs.cols);
    for (block, record) in records.chunks_exact(record_len).enumerate() {
        let weights = record.as_chunks::<WIDTH>().0;
        for t in 0..lhs.m {
            let x = &lhs.x[t * lhs.cols..(t + 1) * lhs.cols];
            let mut acc = [0.0f32; ROWS];
            for (lanes, &x) in weights.chunks_exact(ROWS).zip(x) {
                for (acc, &w) in acc.iter_mut().zip(lanes) {
                    *acc = fma(x, number(w), *acc);
                }
            }
            dst.row_mut(t)[block * ROWS..(block + 1) * ROWS].copy_from_slice(&acc);
        }
    }
}

fn matmul_f32(lhs: &FloatLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul_float(lhs, records, Encoding::F32, dst, f32::from_le_bytes);
}

fn matmul_f16(lhs: &FloatLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
    matmul_float(lhs, records, Encoding::F16, dst, |b| f16_to_f32(u16::from_le_bytes(b)));
}

/// Below this a group counts as zero: 127 divided by it would overflow.
pub(super) const TINY: f32 = 1e-30;

/// Scale of a group whose largest magnitude is `amax`, and what its numbers are multiplied with.
#[inline(always)]
pub(super) fn group_scale(amax: f32) -> (f32, f32) {
    if amax < TINY { (0.0, 0.0) } else { (amax * (1.0 / 127.0), 127.0 / amax) }
}

/// Symmetric: the largest magnitude becomes ±127, rounding is to nearest even. A NaN becomes −127
/// and an infinity makes the scale infinite, so that neither goes unnoticed.
fn quantize(x: &[f32], group: usize, q: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
    q.fill(0);
    for (g, x) in x.chunks(group).enumerate() {
        let mut lanes = [0.0f32; 16];
        for (i, &x) in x.iter().enumerate() {
            lanes[i % 16] = One.max(x.abs(), lanes[i % 16]);
        }
        let (scale, inverse) = group_scale(max_tree(lanes));
        let mut sum = 0;
        for (q, &x) in q[g * group..].iter_mut().zip(x) {
            let clamped = One.min(One.max(x * inverse, -127.0), 127.0);
            *q = (clamped + ROUND_MAGIC).to_bits() as i8;
            sum += i32::from(*q);
        }
        (scales[g], sums[g]) = (scale, sum);
    }
}

/// Two passes: mean, then variance of the differences (Ba et al. 2016; as PyTorch's `LayerNorm`).
fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mut lanes = [0.0f32; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] += x;
    }
    let mean = sum_tree(lanes) / n;
    let mut lanes = [0.0f32; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] = fma(x - mean, x - mean, lanes[i % 16]);
    }
    let inverse = 1.0 / math::sqrt(sum_tree(lanes) / n + eps);
    for i in 0..x.len() {
        out[i] = fma((x[i] - mean) * inverse, weight[i], bias[i]);
    }
}

fn add(x: &mut [f32], bias: &[f32]) {
    x.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
}

fn add_residual(x: &mut [f32], out: &[f32], bias: &[f32]) {
    x.iter_mut().zip(out).zip(bias).for_each(|((x, out), b)| *x += out + b);
}

fn activate(activation: Activation, x: &mut [f32], bias: &[f32]) {
    add(x, bias);
    let f = match activation {
        Activation::GeluNew => math::gelu_new::<One>,
        Activation::Gelu => math::gelu::<One>,
        Activation::Relu => math::relu::<One>,
        Activation::Silu => math::silu::<One>,
    };
    x.iter_mut().for_each(|x| *x = f(One, *x));
}

/// Each key sums its dimensions in order; the scale comes last.
fn scores_float<T: Copy>(
    query: &[f32],
    keys: &[T],
    number: fn(T) -> f32,
    scale: f32,
    scores: &mut [f32],
) {
    let hd = query.len();
    for (slot, score) in scores.iter_mut().enumerate() {
        let key = |d| number(keys[slot / ROWS * (hd * ROWS) + d * ROWS + slot % ROWS]);
        let dot = (0..hd).fold(0.0, |acc, d| fma(query[d], key(d), acc));
        *score = dot * scale;
    }
}

fn scores_q8(
    queries: &[i8],
    scales: &[f32],
    keys: &[i8],
    key_scales: &[f32],
    _: Behind<'_>,
    scores: &mut [f32],
) {
    let (hd, slots) = (queries.len() / scales.len(), scores.len() / scales.len());
    let rows = queries.chunks_exact(hd).zip(scores.chunks_exact_mut(slots));
    for ((query, scores), scale) in rows.zip(scales) {
        for (slot, score) in scores.iter_mut().enumerate() {
            let tile = &keys[slot / ROWS * (hd * ROWS)..];
            let key = |d| i32::from(tile[q8_index(slot % ROWS, d)]);
            let dot: i32 = (0..hd).map(|d| i32::from(query[d]) * key(d)).sum();
            *score = dot as f32 * (key_scales[slot] * scale);
        }
    }
}

fn softmax(x: &mut [f32], lens: &[usize], sums: &mut [f32]) {
    let stride = x.len() / lens.len();
    for ((sum, &len), x) in sums.iter_mut().zip(lens).zip(x.chunks_mut(stride)) {
        *sum = softmax_of_row(&mut x[..len]);
    }
}

/// The maximum is at least the smallest finite number, so that minus infinity becomes zero whatever
/// else is in the row.
fn softmax_of_row(x: &mut [f32]) -> f32 {
    let mut lanes = [f32::MIN; 16];
    for (i, &x) in x.iter().enumerate() {
        lanes[i % 16] = One.max(x, lanes[i % 16]);
    }
    let max = max_tree(lanes);
    let mut lanes = [0.0f32; 16];
    for (i, x) in x.iter_mut().enumerate() {
        *x = math::exp(One, *x - max);
        lanes[i % 16] += *x;
    }
    sum_tree(lanes)
}

/// Each dimension sums its slots in order; the scale comes last.
fn values_float<T: Copy>(
    weights: &[f32],
    scale: f32,
    values: &[T],
    number: fn(T) -> f32,
    out: &mut [f32],
) {
    let hd = out.len();
    for (d, out) in out.iter_mut().enumerate() {
        let value = |slot| number(values[slot * hd + d]);
        let sum = weights.iter().enumerate().fold(0.0, |acc, (t, &w)| fma(w, value(t), acc));
        *out = sum * scale;
    }
}

/// Turns `weight · value scale` into integers of 14 bits, 7 in `high` and 7 in `low`; returns what
/// one unit is worth.
fn weigh_values(weights: &[f32], value_scales: &[f32], high: &mut [u8], low: &mut [u8]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (i, (&w, &s)) in weights.iter().zip(value_scales).enumerate() {
        lanes[i % 16] = One.max(w * s, lanes[i % 16]);
    }
    let max = max_tree(lanes);
    let (unit, inverse) = if max < TINY {
        (0.0, 0.0)
    } else {
        (max * (1.0 / VALUE_WEIGHT_MAX), VALUE_WEIGHT_MAX / max)
    };
    high.fill(0);
    low.fill(0);
    for (i, (&w, &s)) in weights.iter().zip(value_scales).enumerate() {
        let clamped = One.min(One.max(w * s * inverse, 0.0), VALUE_WEIGHT_MAX);
        let integer = (clamped + ROUND_MAGIC).to_bits() & 0x3fff;
        (high[i], low[i]) = ((integer >> 7) as u8, (integer & 127) as u8);
    }
    unit
}

/// Both sums are exact; they are joined as floats.
fn values_q8(high: &[u8], low: &[u8], scale: f32, values: &[i8], _: Behind<'_>, out: &mut [f32]) {
    let hd = out.len();
    for (d, out) in out.iter_mut().enumerate() {
        let sum = |weights: &[u8]| -> i32 {
            let value = |t: usize| i32::from(values[t / 4 * (hd * 4) + d * 4 + t % 4]);
            weights.iter().enumerate().map(|(t, &w)| i32::from(w) * value(t)).sum()
        };
        *out = fma(sum(high) as f32, 128.0, sum(low) as f32) * scale;
    }
}
