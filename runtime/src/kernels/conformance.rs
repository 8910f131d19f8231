//! Every set of kernels against the specification, bit for bit.

use std::vec::Vec;
use std::{println, vec};

#[cfg(target_arch = "x86_64")]
use super::x86_64::{ahead, avx2::many::offset};
use super::*;
use crate::quant::{pack_q3_block, pack_q4_block, pack_q8_block};

/// A small generator; tests need numbers, not randomness.
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as u32
    }
    fn below(&mut self, n: u32) -> u32 {
        self.bits() % n
    }
    /// Between −1 and 1, now and then very large, very small or zero.
    fn float(&mut self) -> f32 {
        let x = self.bits() as f32 / (1u32 << 30) as f32 - 1.0;
        match self.below(50) {
            0 => 0.0,
            1 => x * 1e4,
            2 => x * 1e-6,
            _ => x,
        }
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
    fn int8(&mut self) -> i8 {
        match self.below(8) {
            0 => 127,
            1 => -127,
            _ => (self.below(255) as i32 - 127) as i8,
        }
    }
}

/// All of the cases; under Miri, which is some thousand times slower, the first `few`.
fn cases<T>(all: &[T], few: usize) -> &[T] {
    if cfg!(miri) { &all[..few] } else { all }
}

fn specification() -> Kernels {
    Kernels::for_isa(Isa::Scalar).expect("always there")
}

/// The sets to test: all this CPU has. Those named in `POCKETGPT_REQUIRE_ISA` (separated by
/// commas) must be among them.
pub(super) fn sets() -> Vec<Kernels> {
    let sets: Vec<_> = Isa::available().filter_map(Kernels::for_isa).collect();
    println!("covered: {:?}", sets.iter().map(Kernels::isa).collect::<Vec<_>>());
    for name in std::env::var("POCKETGPT_REQUIRE_ISA").unwrap_or_default().split_terminator(',') {
        let isa: Isa = name.parse().expect("POCKETGPT_REQUIRE_ISA");
        assert!(sets.iter().any(|set| set.isa() == isa), "this CPU lacks the required {isa}");
    }
    sets
}

#[track_caller]
fn assert_same_bits(isa: Isa, ours: &[f32], spec: &[f32]) {
    assert_eq!(ours.len(), spec.len());
    for (i, (a, b)) in ours.iter().zip(spec).enumerate() {
        let equal = a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(equal, "{isa} at {i}: {a:e}, specification {b:e}");
    }
}

/// Bytes that begin at a multiple of 64.
fn aligned(bytes: &[u8]) -> Vec<crate::memory::Line> {
    let mut lines = vec![crate::memory::Line::ZERO; bytes.len().div_ceil(64)];
    bytemuck::cast_slice_mut::<_, u8>(&mut lines)[..bytes.len()].copy_from_slice(bytes);
    lines
}

fn random_records(n: &mut Numbers, encoding: Encoding, blocks: usize, cols: usize) -> Vec<u8> {
    let groups = tile::groups(cols);
    let padded = groups * GROUP;
    let mut out = Vec::new();
    for _ in 0..blocks {
        let mut record = vec![0u8; tile::record_len(encoding, cols)];
        let row_scales: [f32; ROWS] = core::array::from_fn(|_| n.float());
        match encoding {
            Encoding::F32 => {
                let values = n.floats(ROWS * cols);
                record.copy_from_slice(bytemuck::cast_slice(&values));
            }
            Encoding::F16 => {
                for x in record[..2 * ROWS * cols].as_chunks_mut::<2>().0 {
                    *x = scalar::f32_to_f16(n.float()).to_le_bytes();
                }
            }
            Encoding::Q8 => {
                let values: Vec<i8> = (0..ROWS * padded).map(|_| n.int8()).collect();
                let scales: Vec<u8> = (0..ROWS * groups).map(|_| n.bits() as u8).collect();
                pack_q8_block(&values, &scales, &row_scales, &mut record);
            }
            Encoding::Q4 => {
                let values: Vec<i8> = (0..ROWS * padded).map(|_| n.below(16) as i8 - 8).collect();
                let scales: Vec<i8> = (0..ROWS * groups).map(|_| n.int8()).collect();
                pack_q4_block(&values, &scales, &row_scales, &mut record);
            }
            Encoding::Q3 => {
                let values: Vec<i8> = (0..ROWS * padded).map(|_| n.below(8) as i8 - 4).collect();
                let scales: Vec<i8> = (0..ROWS * groups).map(|_| n.int8()).collect();
                pack_q3_block(&values, &scales, &row_scales, &mut record);
            }
        }
        out.extend(record);
    }
    out
}

fn matmul(set: Kernels, x: &[f32], m: usize, encoding: Encoding, records: &[u8]) -> Vec<f32> {
    let cols = x.len() / m;
    let width = records.len() / tile::record_len(encoding, cols) * ROWS;
    let mut out = vec![f32::NAN; m * width];
    let mut dst = Columns::new(&mut out, width);
    let groups = tile::groups(cols);
    let (mut q, mut scales, mut sums) =
        (vec![0; m * groups * GROUP], vec![0.0; m * groups], vec![0; m * groups]);
    for t in 0..m {
        set.quantize(
            &x[t * cols..(t + 1) * cols],
            GROUP,
            &mut q[t * groups * GROUP..(t + 1) * groups * GROUP],
            &mut scales[t * groups..(t + 1) * groups],
            &mut sums[t * groups..(t + 1) * groups],
        );
    }
    let lhs = match encoding {
        Encoding::F32 | Encoding::F16 => Lhs::Float(FloatLhs { x, m, cols }),
        Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => {
            Lhs::Quant(QuantLhs { q: &q, scales: &scales, sums: &sums, m, groups })
        }
    };
    set.matmul(&lhs, encoding, records, &mut dst);
    out
}

const ENCODINGS: [Encoding; 5] =
    [Encoding::F32, Encoding::F16, Encoding::Q8, Encoding::Q4, Encoding::Q3];

#[test]
fn matrix_products() {
    let mut n = Numbers(1);
    let shapes = [
        (1, 33),
        (2, 33),
        (1, 32),
        (1, 1),
        (3, 96),
        (1, 100),
        (2, 257),
        (2, 800),
        (3, 1600),
        (50, 800),
    ];
    for &(blocks, cols) in cases(&shapes, 1) {
        for encoding in ENCODINGS {
            let records = random_records(&mut n, encoding, blocks, cols);
            let lines = aligned(&records);
            let records = &bytemuck::cast_slice(&lines)[..records.len()];
            // Wide rows are taken in pieces, many rows and many tokens in parts.
            let ms: &[usize] = if cols < 800 {
                &[5, 1, 2, 3, 4, 6, 7, 8, 9, 13, 17]
            } else if blocks < 3 {
                &[6, 10, 26, 53, 71, 100]
            } else {
                &[2, 6, 13, 25]
            };
            for &m in cases(ms, 1) {
                let x = n.floats(m * cols);
                let spec = matmul(specification(), &x, m, encoding, records);
                for set in sets() {
                    assert_same_bits(set.isa(), &matmul(set, &x, m, encoding, records), &spec);
                    // A row does not depend on how many are computed with it.
                    let alone = matmul(set, &x[..cols], 1, encoding, records);
                    assert_same_bits(set.isa(), &alone, &spec[..alone.len()]);
                }
            }
        }
    }
}

/// Of each encoding a value of all weights, and the byte that it is.
const EXTREMES: [(Encoding, u8, f32); 7] = [
    (Encoding::Q8, 0x7f, 127.0),
    (Encoding::Q8, 0x81, -127.0),
    (Encoding::Q8, 0x80, -128.0),
    (Encoding::Q4, 0xff, 7.0),
    (Encoding::Q4, 0, -8.0),
    (Encoding::Q3, 0xff, 3.0),
    (Encoding::Q3, 0, -4.0),
];

/// The sign of an activation, by its token and its place in the row.
type Sign = fn(usize, usize) -> bool;

/// Tokens of one sign, of the other, of both in turns; and signs that cancel out, between neighbours,
/// the nibbles of a byte, and the halves of a group.
const SIGNS: [Sign; 6] = [
    |_, _| true,
    |_, _| false,
    |t, _| t % 2 == 0,
    |t, col| (t + col) % 2 == 0,
    |_, col| col % 8 < 4,
    |_, col| col % GROUP < GROUP / 2,
];

/// Sums as large as they can be do not overflow, of single tokens and in panels of all sizes.
#[test]
fn extreme_integers_stay_exact() {
    // Wide rows are taken in pieces. All sums are exact as f32.
    for &cols in cases(&[64, 1056], 1) {
        for (encoding, fill, weight) in EXTREMES {
            let mut record = vec![fill; tile::record_len(encoding, cols)];
            for scale in record[..tile::ROW_SCALES_BYTES].as_chunks_mut::<4>().0 {
                *scale = 1.0f32.to_le_bytes();
            }
            let groups = tile::groups(cols);
            record[tile::ROW_SCALES_BYTES..tile::weights_offset(groups)].fill(0);
            record[tile::ROW_SCALES_BYTES..][..ROWS * groups].fill(1);
            let lines = aligned(&record);
            let records = &bytemuck::cast_slice(&lines)[..record.len()];
            let ms = cases(&[2, 1, 7, 16, 25, 27, 29, 64, 70, 72, 75], 1).iter();
            for (&m, is_positive) in ms.flat_map(|m| cases(&SIGNS, 1).iter().map(move |s| (m, s))) {
                let value = |t, col| if is_positive(t, col) { 127.0 } else { -127.0 };
                let mut x = Vec::new();
                let mut expected = Vec::new();
                for t in 0..m {
                    x.extend((0..cols).map(|col| value(t, col)));
                    let sum: f32 = x[t * cols..].iter().sum();
                    expected.extend([sum * weight; ROWS]);
                }
                // Of the two zeros one.
                let expected: Vec<f32> = expected.iter().map(|x| x + 0.0).collect();
                for set in sets() {
                    in_each_way(|| {
                        let ours = matmul(set, &x, m, encoding, records);
                        let ours: Vec<f32> = ours.iter().map(|x| x + 0.0).collect();
                        assert_same_bits(set.isa(), &ours, &expected);
                    });
                }
            }
        }
    }
}

/// Runs a test as on CPUs that are asked ahead in each way, and as on one that is not; as on CPUs that are better
/// at adding floats, and as on others.
fn in_each_way(mut test: impl FnMut()) {
    #[cfg(target_arch = "x86_64")]
    {
        for way in [ahead::Way::First, ahead::Way::Second, ahead::Way::Never] {
            ahead::tests::decided(way, &mut test);
        }
        for adds_floats in [false, true] {
            offset::tests::decided(adds_floats, &mut test);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    test();
}

/// Whether weights are asked for ahead, or sums are made as floats, does not change a product of one or of
/// several tokens.
#[test]
fn what_is_chosen_by_cpu_changes_nothing() {
    let mut n = Numbers(6);
    for &cols in cases(&[32, 257, 1100, 4200], 1) {
        for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
            let records = random_records(&mut n, encoding, 3, cols);
            let lines = aligned(&records);
            let records = &bytemuck::cast_slice(&lines)[..records.len()];
            for &m in cases(&[1, 2, 7, 13, 25, 29, 32, 64, 72, 75], 1) {
                let x = n.floats(m * cols);
                let spec = matmul(specification(), &x, m, encoding, records);
                for set in sets() {
                    in_each_way(|| {
                        assert_same_bits(set.isa(), &matmul(set, &x, m, encoding, records), &spec);
                    });
                }
            }
        }
    }
}

/// Small enough for Miri: the least that AVX2 unpacks weights for beforehand, with some tokens behind the sixes.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_few_rows_of_many_tokens() {
    let (m, cols) = (26, 32);
    let mut n = Numbers(7);
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let records = random_records(&mut n, encoding, 1, cols);
        let lines = aligned(&records);
        let records = &bytemuck::cast_slice(&lines)[..records.len()];
        let x = n.floats(m * cols);
        let spec = matmul(specification(), &x, m, encoding, records);
        for set in sets() {
            let ways: &[bool] = if encoding == Encoding::Q8 { &[false, true] } else { &[false] };
            for &adds_floats in ways {
                offset::tests::decided(adds_floats, || {
                    assert_same_bits(set.isa(), &matmul(set, &x, m, encoding, records), &spec);
                });
            }
        }
    }
}

#[test]
fn quantization() {
    let mut n = Numbers(2);
    for &group in cases(&[32, 64, 16, 80], 1) {
        for &len in cases(&[33, 15, 1, 16, 17, 31, 32, 63, 64, 65, 100, 256, 512, 545, 1056], 2) {
            let numbers = n.floats(len);
            for case in 0..8 {
                let mut x = numbers.clone();
                let first = &mut x[..len.min(group)];
                match case {
                    1 => x.fill(0.0),
                    2 => x[0] = f32::NAN,
                    3 => x[len / 2] = f32::INFINITY,
                    4 => x[len - 1] = f32::NEG_INFINITY,
                    // Below what a scale is made of, at it, and subnormal.
                    5 => first.iter_mut().for_each(|x| *x = x.signum() * 9e-31),
                    6 => first.iter_mut().for_each(|x| *x = x.signum() * scalar::TINY),
                    7 => first.iter_mut().for_each(|x| *x = x.signum() * 1e-40),
                    _ => {}
                }
                let run = |set: Kernels| {
                    let groups = len.div_ceil(group);
                    let (mut q, mut s, mut sum) =
                        (vec![99; groups * group], vec![9.0; groups], vec![9; groups]);
                    set.quantize(&x, group, &mut q, &mut s, &mut sum);
                    (q, s, sum)
                };
                let spec = run(specification());
                for set in sets() {
                    let ours = run(set);
                    assert_eq!(
                        (&ours.0, &ours.2),
                        (&spec.0, &spec.2),
                        "{} {group} {len}",
                        set.isa()
                    );
                    assert_same_bits(set.isa(), &ours.1, &spec.1);
                }
            }
        }
    }
}

#[test]
fn vectors() {
    let mut n = Numbers(3);
    for &len in cases(&[33, 15, 1, 2, 16, 17, 31, 32, 100, 257], 1) {
        // Misaligned on purpose.
        let x = n.floats(len + 1);
        let (w, b) = (n.floats(len + 1), n.floats(len + 1));
        let (x, w, b) = (&x[1..], &w[1..], &b[1..]);
        let run = |set: Kernels| {
            let mut out = Vec::new();
            let mut y = vec![0.0; len];
            set.layer_norm(x, w, b, 1e-5, &mut y);
            out.extend(&y);
            use Activation::*;
            for activation in [GeluNew, Gelu, Relu, Silu] {
                for factor in [1.0, 5.0, 100.0] {
                    let mut y: Vec<f32> = x.iter().map(|x| x * factor).collect();
                    set.activate(activation, &mut y);
                    out.extend(&y);
                    set.activate_biased(activation, &mut y, b);
                    out.extend(y);
                }
            }
            let mut y = x.to_vec();
            set.add(&mut y, b);
            out.extend(&y);
            set.add_residual(&mut y, w, b);
            out.extend(y);
            for factor in [1.0, 30.0] {
                let mut y: Vec<f32> = x.iter().map(|x| x * factor).collect();
                out.push(set.softmax_unnormalized(&mut y));
                out.extend(y);
            }
            out
        };
        let spec = run(specification());
        for set in sets() {
            assert_same_bits(set.isa(), &run(set), &spec);
        }
    }
}

#[test]
fn attention() {
    let mut n = Numbers(4);
    for &hd in cases(&[48, 16, 32, 64, 80, 128], 1) {
        for &used in cases(&[17usize, 1, 5, 16, 63, 64, 100], 1) {
            let slots = used.next_multiple_of(64);
            let (k, v) = (n.floats(slots * hd), n.floats(slots * hd));
            let f16 = |x: &[f32]| x.iter().map(|&x| scalar::f32_to_f16(x)).collect::<Vec<_>>();
            let (k16, v16) = (f16(&k), f16(&v));
            let mut int8s = || (0..slots * hd).map(|_| n.int8()).collect::<Vec<_>>();
            let (k8, v8) = (int8s(), int8s());
            let (ks, vs) = (n.floats(slots), n.floats(slots));
            let vs: Vec<f32> = vs.iter().map(|x| x.abs()).collect();
            let query = n.floats(hd);
            let query8: Vec<i8> = (0..hd).map(|_| n.int8()).collect();
            let queries: Vec<i8> = (0..13 * hd).map(|_| n.int8()).collect();
            let scales = n.floats(13);
            let caches = [
                HeadCache::F32 { keys: &k, values: &v },
                HeadCache::F16 { keys: &k16, values: &v16 },
                HeadCache::Q8 { keys: &k8, key_scales: &ks, values: &v8, value_scales: &vs },
            ];
            for cache in &caches {
                let run = |set: Kernels| {
                    let mut scores = vec![0.0; used.next_multiple_of(16)];
                    let mut out = vec![0.0; hd];
                    let q8 = matches!(cache, HeadCache::Q8 { .. });
                    if q8 {
                        set.scores_q8(&query8, cache, &[1e-3], &mut scores);
                    } else {
                        set.scores(&query, cache, 0.125, &mut scores);
                    }
                    let mut all = scores.clone();
                    for &many in cases(&[3, 2, 4, 8, 13], 1) {
                        if q8 {
                            let mut scores = vec![0.0; many * scores.len()];
                            let queries = &queries[..many * hd];
                            set.scores_q8(queries, cache, &scales[..many], &mut scores);
                            all.extend(scores);
                        }
                    }
                    let mut rows: Vec<f32> =
                        scores.iter().cycle().copied().take(19 * scores.len()).collect();
                    let lens: Vec<usize> = (0..19).map(|i| used.saturating_sub(i)).collect();
                    let stride = scores.len();
                    rows[..stride].fill(f32::NEG_INFINITY);
                    rows[2 * stride - 1] = f32::NEG_INFINITY;
                    rows[2 * stride] = f32::INFINITY;
                    rows[3 * stride] = f32::NAN;
                    rows[4 * stride..5 * stride].fill(f32::NAN);
                    let mut sums = [0.0; 19];
                    set.softmax_rows(&mut rows, &lens, &mut sums);
                    all.extend(rows);
                    all.extend(sums);
                    let sum = set.softmax_unnormalized(&mut scores[..used]);
                    let (mut high, mut low) = (vec![9; slots], vec![9; slots]);
                    if q8 {
                        let halves = (&mut high[..], &mut low[..]);
                        set.values_q8(
                            &scores[..used],
                            cache,
                            1.0 / sum,
                            halves,
                            Some(cache),
                            &mut out,
                        );
                    } else {
                        set.values(&scores[..used], cache, 1.0 / sum, &mut out);
                    }
                    all.extend(out);
                    all
                };
                let spec = run(specification());
                for set in sets() {
                    in_each_way(|| assert_same_bits(set.isa(), &run(set), &spec));
                }
            }
        }
    }
}
