//! One block of 16 output rows as the record that kernels read in place.

use half::f16;
use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::quant::tile::{self, GROUP, ROWS};
use pocketgpt_runtime::quant::{pack_q3_block, pack_q4_block, pack_q8_block};

use crate::{int8, low_bits};

/// What storing some weights lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum of squared weights.
    pub signal: f64,
    /// Sum of squared differences to what is stored.
    pub noise: f64,
    /// Weights too large for f16.
    pub overflows: usize,
}

impl std::ops::AddAssign for Loss {
    fn add_assign(&mut self, other: Self) {
        self.signal += other.signal;
        self.noise += other.noise;
        self.overflows += other.overflows;
    }
}

/// Memory for the integers of a block.
#[derive(Clone, Debug)]
pub struct BlockScratch {
    /// `[16][groups * 32]`
    values: Vec<i8>,
    /// `[16][groups]`
    scales_i8: Vec<i8>,
    /// `[16][groups]`
    scales_u8: Vec<u8>,
}

impl BlockScratch {
    /// For blocks of this many inputs.
    pub fn new(cols: usize) -> Self {
        let groups = tile::groups(cols);
        Self {
            values: vec![0; ROWS * groups * GROUP],
            scales_i8: vec![0; ROWS * groups],
            scales_u8: vec![0; ROWS * groups],
        }
    }
}

/// Encodes a block. `rows`: `[16][cols]`, zeros behind the last row; `importance`: `[cols]`, what
/// a squared error of each input counts; `out`: [`tile::record_len`] bytes.
pub fn encode_block(
    encoding: Encoding,
    rows: &[f32],
    importance: Option<&[f32]>,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Loss {
    let cols = rows.len() / ROWS;
    assert_eq!(rows.len(), ROWS * cols);
    assert_eq!(out.len(), tile::record_len(encoding, cols));
    match encoding {
        Encoding::F32 => interleave_f32(rows, cols, out),
        Encoding::F16 => interleave_f16(rows, cols, out),
        Encoding::Q8 => encode_q8(rows, cols, importance, scratch, out),
        Encoding::Q4 => encode_low_bits(Q4, rows, cols, importance, scratch, out),
        Encoding::Q3 => encode_low_bits(Q3, rows, cols, importance, scratch, out),
    }
}

/// Encodes numbers that are stored one after another, as f32 or f16.
pub fn encode_numbers(encoding: Encoding, numbers: &[f32], out: &mut [u8]) -> Loss {
    let mut loss = Loss::default();
    if encoding == Encoding::F16 {
        for (value, bytes) in numbers.iter().zip(out.as_chunks_mut::<2>().0) {
            *bytes = f16_bytes(*value, &mut loss);
        }
    } else {
        for (value, bytes) in numbers.iter().zip(out.as_chunks_mut::<4>().0) {
            *bytes = value.to_le_bytes();
        }
        loss.signal = energy(numbers);
    }
    loss
}

/// `[16][cols]` to `[cols][16]`
fn interleave_f32(rows: &[f32], cols: usize, out: &mut [u8]) -> Loss {
    for (col, lanes) in out.chunks_exact_mut(4 * ROWS).enumerate() {
        for (lane, bytes) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *bytes = rows[lane * cols + col].to_le_bytes();
        }
    }
    Loss { signal: energy(rows), ..Loss::default() }
}

/// `[16][cols]` to `[cols][16]`, rounded to nearest even; zeros up to the record's end.
fn interleave_f16(rows: &[f32], cols: usize, out: &mut [u8]) -> Loss {
    let mut loss = Loss::default();
    let (lanes, padding) = out.split_at_mut(2 * ROWS * cols);
    padding.fill(0);
    for (col, lanes) in lanes.chunks_exact_mut(2 * ROWS).enumerate() {
        for (lane, bytes) in lanes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *bytes = f16_bytes(rows[lane * cols + col], &mut loss);
        }
    }
    loss
}

fn f16_bytes(value: f32, loss: &mut Loss) -> [u8; 2] {
    let stored = f16::from_f32(value);
    let error = f64::from(value) - f64::from(stored.to_f32());
    loss.signal += f64::from(value) * f64::from(value);
    loss.noise += error * error;
    loss.overflows += usize::from(stored.is_infinite());
    stored.to_le_bytes()
}

/// Row and importance in, values and block scales out; returns the row scale.
type QuantizeRow<Scale> = fn(&[f32], Option<&[f32]>, &mut [i8], &mut [Scale]) -> f32;

/// Quantizes sixteen rows with `quantize_row` into `values` and `scales`; returns the row scales and the loss.
fn quantize_rows<Scale: Copy + Into<f32>>(
    rows: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
    (values, scales): (&mut [i8], &mut [Scale]),
    quantize_row: QuantizeRow<Scale>,
) -> ([f32; ROWS], Loss) {
    let groups = tile::groups(cols);
    let mut row_scales = [0.0; ROWS];
    let mut loss = Loss::default();
    for (lane, row) in rows.chunks_exact(cols).enumerate() {
        let values = &mut values[lane * groups * GROUP..][..groups * GROUP];
        let scales = &mut scales[lane * groups..][..groups];
        row_scales[lane] = quantize_row(row, importance, values, scales);
        for (g, &scale) in scales.iter().enumerate() {
            loss += group_loss(row, values, g, scale.into(), row_scales[lane]);
        }
    }
    (row_scales, loss)
}

fn encode_q8(
    rows: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Loss {
    let (values, scales) = (&mut scratch.values[..], &mut scratch.scales_u8[..]);
    let to = (&mut *values, &mut *scales);
    let (row_scales, loss) = quantize_rows(rows, cols, importance, to, int8::quantize_row);
    pack_q8_block(values, scales, &row_scales, out);
    loss
}

/// How q4 and q3 differ: a row's quantization, and a record's packing.
type LowBits = (QuantizeRow<i8>, fn(&[i8], &[i8], &[f32; ROWS], &mut [u8]));
const Q4: LowBits = (low_bits::quantize_row_q4, pack_q4_block);
const Q3: LowBits = (low_bits::quantize_row_q3, pack_q3_block);

fn encode_low_bits(
    (quantize_row, pack): LowBits,
    rows: &[f32],
    cols: usize,
    importance: Option<&[f32]>,
    scratch: &mut BlockScratch,
    out: &mut [u8],
) -> Loss {
    let (values, scales) = (&mut scratch.values[..], &mut scratch.scales_i8[..]);
    let to = (&mut *values, &mut *scales);
    let (row_scales, loss) = quantize_rows(rows, cols, importance, to, quantize_row);
    pack(values, scales, &row_scales, out);
    loss
}

/// What one group lost, its weights computed as the runtime does.
fn group_loss(row: &[f32], values: &[i8], g: usize, scale: f32, row_scale: f32) -> Loss {
    let range = g * GROUP..row.len().min((g + 1) * GROUP);
    let mut loss = Loss::default();
    for (value, q) in row[range.clone()].iter().zip(&values[range]) {
        let stored = f32::from(*q) * scale * row_scale;
        let error = f64::from(*value) - f64::from(stored);
        loss.signal += f64::from(*value) * f64::from(*value);
        loss.noise += error * error;
    }
    loss
}

fn energy(numbers: &[f32]) -> f64 {
    numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}
