//! The quantizers against plain rounding, on what a runtime reads back.

use pocketgpt_quantize::Encoding;
use pocketgpt_quantize::pack::{BlockScratch, encode_block};
use pocketgpt_quantize::{int8, low_bits};
use pocketgpt_runtime::quant::tile::{self, GROUP, QuantRecord, ROWS};
use pocketgpt_runtime::quant::{unpack_q3, unpack_q4, unpack_q8};
use proptest::prelude::*;

/// A row quantized and read back.
fn round_trip(encoding: Encoding, row: &[f32], importance: Option<&[f32]>) -> Vec<f32> {
    quantize(encoding, row, importance).0
}

/// A row quantized and read back, and its scale.
fn quantize(encoding: Encoding, row: &[f32], importance: Option<&[f32]>) -> (Vec<f32>, f32) {
    let groups = tile::groups(row.len());
    let mut values = vec![99; groups * GROUP];
    let (scales, row_scale) = match encoding {
        Encoding::Q8 => {
            let mut scales = vec![99; groups];
            let row_scale = int8::quantize_row(row, importance, &mut values, &mut scales);
            (scales.into_iter().map(f32::from).collect::<Vec<_>>(), row_scale)
        }
        _ => {
            let mut scales = vec![99; groups];
            let (quantize_row, range): (fn(_, _, _, _) -> _, _) = match encoding {
                Encoding::Q3 => (low_bits::quantize_row_q3, -4..=3),
                _ => (low_bits::quantize_row_q4, -8..=7),
            };
            let row_scale = quantize_row(row, importance, &mut values[..], &mut scales[..]);
            assert!(values.iter().all(|q| range.contains(q)));
            assert!(scales.iter().all(|b| *b != -128));
            (scales.into_iter().map(f32::from).collect(), row_scale)
        }
    };
    assert!(row_scale.is_finite() && row_scale >= 0.0);
    assert!(values.iter().all(|q| *q != -128));
    assert!(values[row.len()..].iter().all(|q| *q == 0), "padding");
    let weight = |i: usize| f32::from(values[i]) * scales[i / GROUP] * row_scale;
    ((0..row.len()).map(weight).collect(), row_scale)
}

fn squared_error(row: &[f32], stored: &[f32], importance: Option<&[f32]>) -> f64 {
    let counts = |i: usize| importance.map_or(1.0, |w| f64::from(w[i]));
    row.iter()
        .zip(stored)
        .enumerate()
        .map(|(i, (x, y))| counts(i) * (f64::from(*x) - f64::from(*y)).powi(2))
        .sum()
}

/// Error of one group where the largest magnitude is the grid's largest, with a step that is an
/// exact number or, as in a file, a multiple of the row's scale.
fn absmax_error(group: &[f32], levels: f32, unit: Option<f32>) -> f64 {
    let amax = group.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let step = amax / levels;
    let step = unit.map_or(step, |unit| (step / unit).ceil() * unit);
    let stored: Vec<f32> = group.iter().map(|x| (x / step).round() * step).collect();
    squared_error(group, &stored, None)
}

/// Numbers distributed about like weights: a sum of three uniform ones.
fn weights(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| (uniform() + uniform() + uniform()) * 0.1).collect()
}

#[test]
fn no_group_is_worse_than_plain_rounding() {
    for (encoding, levels, least_gain) in
        [(Encoding::Q8, 127.0, 0.8), (Encoding::Q4, 7.0, 0.7), (Encoding::Q3, 3.0, 0.7)]
    {
        let (mut total, mut plain_total) = (0.0, 0.0);
        for seed in 0..50 {
            let row = weights(seed, 256);
            let (stored, row_scale) = quantize(encoding, &row, None);
            for (group, stored) in row.chunks(GROUP).zip(stored.chunks(GROUP)) {
                let error = squared_error(group, stored, None);
                let plain = absmax_error(group, levels, Some(row_scale));
                // Sums in f32 decide: they may take two errors for equal that are not quite.
                assert!(error <= plain * 1.00001, "{encoding:?}: {error} > {plain}");
                total += error;
                plain_total += absmax_error(group, levels, None);
            }
        }
        assert!(total < plain_total * least_gain, "{encoding:?}: {}", total / plain_total);
    }
}

#[test]
fn zeros_stay_zero() {
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        for row in [vec![0.0; 96], vec![-0.0; 96], vec![0.0; 5]] {
            assert!(round_trip(encoding, &row, None).iter().all(|x| *x == 0.0));
        }
        // A group of zeros beside one that is not.
        let mut row = weights(1, 64);
        row[..32].fill(0.0);
        assert!(round_trip(encoding, &row, None)[..32].iter().all(|x| *x == 0.0));
    }
}

#[test]
fn what_the_grid_represents_is_kept() {
    for (encoding, largest) in [(Encoding::Q8, 127), (Encoding::Q4, 7), (Encoding::Q3, 3)] {
        for constant in [1.0, -1.0, 0.1, -3e-5, 1e20] {
            let row = [constant; 40];
            for stored in round_trip(encoding, &row, None) {
                assert!((stored / constant - 1.0).abs() < 1e-6, "{encoding:?} {stored}");
            }
        }
        let row: Vec<f32> =
            (0..32).map(|i| ((i * 5) % (2 * largest + 1) - largest) as f32).collect();
        let mut row = [row.clone(), row].concat();
        row[0] = largest as f32;
        row[32] = largest as f32;
        for (x, stored) in row.iter().zip(round_trip(encoding, &row, None)) {
            assert!((x - stored).abs() < 1e-4, "{encoding:?} {x} {stored}");
        }
    }
    // The lopsided ends of the 4-bit and the 3-bit grid, on either side.
    for (encoding, half) in [(Encoding::Q4, 8), (Encoding::Q3, 4)] {
        for sign in [1.0, -1.0] {
            let row: Vec<f32> = (0..32).map(|i| sign * (i % (2 * half) - half) as f32).collect();
            for (x, stored) in row.iter().zip(round_trip(encoding, &row, None)) {
                assert!((x - stored).abs() < 1e-4, "{encoding:?} {x} {stored}");
            }
        }
    }
}

#[test]
fn an_outlier_does_not_take_the_other_groups_along() {
    for (encoding, most) in [(Encoding::Q8, 1e-3), (Encoding::Q4, 1.2e-2), (Encoding::Q3, 6e-2)] {
        let mut row = weights(7, 128);
        row[3] = 5.0;
        let stored = round_trip(encoding, &row, None);
        assert!((stored[3] - 5.0).abs() < 0.01, "{}", stored[3]);
        let energy = squared_error(&row[32..], &[0.0; 96], None);
        let error = squared_error(&row[32..], &stored[32..], None);
        assert!(error < most * energy, "{encoding:?} {}", error / energy);
        // Far beyond what an integer of 8 bits spans, the small groups become zero, not wrong.
        row[3] = 1e30;
        assert!(round_trip(encoding, &row, None)[32..].iter().all(|x| *x == 0.0));
    }
}

#[test]
fn the_smallest_and_largest_numbers() {
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let smallest = f32::from_bits(1);
        for row in [vec![smallest; 32], vec![1e-40; 33], vec![f32::MIN_POSITIVE; 64]] {
            assert!(round_trip(encoding, &row, None).iter().all(|x| x.is_finite()));
        }
        let mut row = vec![smallest; 64];
        row[40] = 1.0;
        let stored = round_trip(encoding, &row, None);
        assert!((stored[40] - 1.0).abs() < 1e-6 && stored[0] == 0.0);
        let row = [1e37, -1e37, 0.0, 5e36];
        let stored = round_trip(encoding, &row, None);
        assert!(squared_error(&row, &stored, None) < 1e-2 * squared_error(&row, &[0.0; 4], None));
    }
}

#[test]
fn important_inputs_come_first() {
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let row = weights(11, 128);
        let importance: Vec<f32> = (0..128).map(|i| if i % 4 == 0 { 20.0 } else { 0.1 }).collect();
        let weighted = round_trip(encoding, &row, Some(&importance));
        let plain = round_trip(encoding, &row, None);
        let (better, worse) = (
            squared_error(&row, &weighted, Some(&importance)),
            squared_error(&row, &plain, Some(&importance)),
        );
        assert!(better < worse, "{encoding:?} {better} {worse}");
        let ones = vec![1.0; 128];
        assert_eq!(round_trip(encoding, &row, Some(&ones)), plain);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A block as it stands in a file gives the weights that the loss was computed from.
    #[test]
    fn blocks_read_back(seed: u32, cols in 1usize..200, exponent in -30i32..30, used in 1usize..=ROWS) {
        let mut rows = weights(seed, ROWS * cols);
        rows.iter_mut().for_each(|x| *x *= 2f32.powi(exponent));
        rows[used * cols..].fill(0.0);
        let groups = tile::groups(cols);
        let mut scratch = BlockScratch::new(cols);
        for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
            let mut record = vec![0xaa; tile::record_len(encoding, cols)];
            let loss = encode_block(encoding, &rows, None, &mut scratch, &mut record);
            let view = QuantRecord::new(&record, groups);
            let (mut noise, mut signal) = (0.0, 0.0);
            for lane in 0..ROWS {
                for col in 0..groups * GROUP {
                    let stored = match encoding {
                        Encoding::Q8 => unpack_q8(&view, lane, col),
                        Encoding::Q3 => unpack_q3(&view, lane, col),
                        _ => unpack_q4(&view, lane, col),
                    };
                    let x = if col < cols { rows[lane * cols + col] } else { 0.0 };
                    noise += (f64::from(x) - f64::from(stored)).powi(2);
                    signal += f64::from(x).powi(2);
                    if lane >= used || col >= cols {
                        prop_assert_eq!(stored, 0.0);
                    }
                }
            }
            prop_assert!((noise - loss.noise).abs() <= 1e-9 * noise);
            prop_assert!((signal - loss.signal).abs() <= 1e-9 * signal);
            let most = match encoding {
                Encoding::Q8 => 1e-4,
                Encoding::Q3 => 1e-1,
                _ => 2e-2,
            };
            prop_assert!(noise <= most * signal, "{} {}", noise, signal);
        }
    }

    /// f16 and f32 blocks are the numbers themselves, lanes innermost.
    #[test]
    fn float_blocks_interleave(seed: u32, cols in 1usize..70) {
        let rows: Vec<f32> = weights(seed, ROWS * cols)
            .into_iter()
            .map(|x| half::f16::from_f32(x).to_f32())
            .collect();
        let mut scratch = BlockScratch::new(cols);
        for encoding in [Encoding::F32, Encoding::F16] {
            let mut record = vec![0xaa; tile::record_len(encoding, cols)];
            let loss = encode_block(encoding, &rows, None, &mut scratch, &mut record);
            prop_assert_eq!((loss.noise, loss.overflows), (0.0, 0));
            for lane in 0..ROWS {
                for col in 0..cols {
                    let at = col * ROWS + lane;
                    let stored = match encoding {
                        Encoding::F32 => f32::from_le_bytes(record[4 * at..][..4].try_into().unwrap()),
                        _ => half::f16::from_le_bytes(record[2 * at..][..2].try_into().unwrap()).to_f32(),
                    };
                    prop_assert_eq!(stored, rows[lane * cols + col]);
                }
            }
            let width = if encoding == Encoding::F32 { 4 } else { 2 };
            prop_assert!(record[width * ROWS * cols..].iter().all(|b| *b == 0));
        }
    }
}
