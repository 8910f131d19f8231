//! Whether a set of kernels computes what the specification does, on this CPU, now.
//!
//! Tests prove it for the CPUs they ran on. A program that is carried to boards nobody has tested
//! looks again when it starts: a few numbers through every kernel, without allocating.

use core::fmt;

use super::{Columns, FloatLhs, HeadCache, Kernels, Lhs, QuantLhs, scalar};
use crate::config::Activation;
use crate::format::Encoding;
use crate::isa::Isa;
use crate::memory::Line;
use crate::quant::tile::{self, GROUP, ROWS};

/// Kernels that do not compute what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTestError {
    /// The set.
    pub isa: Isa,
    /// The first kernel that differs.
    pub kernel: &'static str,
}

impl fmt::Display for SelfTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { isa, kernel } = self;
        write!(f, "the {isa} kernel for {kernel} computes something else than the scalar code")
    }
}

impl core::error::Error for SelfTestError {}

impl Kernels {
    /// Compares every kernel with the specification on a few numbers. Takes well below a
    /// millisecond.
    ///
    /// # Errors
    /// The first kernel that gives other bits.
    pub fn self_test(&self) -> Result<(), SelfTestError> {
        let specification = Kernels { table: &scalar::TABLE };
        for (kernel, digest) in PARTS {
            if digest(self, self.isa()) != digest(&specification, self.isa()) {
                return Err(SelfTestError { isa: self.isa(), kernel });
            }
        }
        Ok(())
    }

    /// The fastest kernels of this CPU that pass [`Kernels::self_test`]; `failed` is told of those
    /// that do not. The specification is not asked.
    pub fn best_tested(failed: impl FnMut(SelfTestError)) -> Self {
        first_that_passes(Isa::available().rev().filter_map(Self::for_isa), failed)
    }
}

fn first_that_passes(
    mut sets: impl Iterator<Item = Kernels>,
    mut failed: impl FnMut(SelfTestError),
) -> Kernels {
    let passing = sets.find(|set| {
        let result = if set.isa() == Isa::Scalar { Ok(()) } else { set.self_test() };
        result.map_err(&mut failed).is_ok()
    });
    passing.unwrap_or(Kernels { table: &scalar::TABLE })
}

/// What kernels compute from numbers that are made to test a set.
type Digest = fn(&Kernels, Isa) -> u64;

/// What is compared, in the order of the work of a token.
const PARTS: [(&str, Digest); 11] = [
    ("LayerNorm", |kernels, _| layer_norm(kernels)),
    ("quantization", |kernels, _| quantize(kernels)),
    ("products with q8 weights", |kernels, set| quant_products(kernels, Encoding::Q8, set)),
    ("products with q4 weights", |kernels, set| quant_products(kernels, Encoding::Q4, set)),
    ("products with q3 weights", |kernels, set| quant_products(kernels, Encoding::Q3, set)),
    ("products with f32 weights", |kernels, _| float_products(kernels, Encoding::F32)),
    ("products with f16 weights", |kernels, _| float_products(kernels, Encoding::F16)),
    ("activation functions and softmax", |kernels, _| pointwise(kernels)),
    ("attention over f32", |kernels, _| attention(kernels, KvKind::F32)),
    ("attention over f16", |kernels, _| attention(kernels, KvKind::F16)),
    ("attention over q8", |kernels, _| attention(kernels, KvKind::Q8)),
];

/// Two groups.
const COLS: usize = 2 * GROUP;
/// Numbers of tokens that make full tiles on every set, and every other kind but those of few tokens;
/// one may take another way.
const TOKENS: &[usize] = &[12, 9, 1];
/// AVX2 unpacks weights for many tokens, and takes six of them together.
const AVX2_TOKENS: &[usize] = &[26, 12, 9, 1];
/// AMX takes sixteen tokens, and the next sixteen before it is done with them; 18 it leaves to AVX-512.
const AMX_TOKENS: &[usize] = &[26, 18, 9, 1];
const MOST_TOKENS: usize = AMX_TOKENS[0];
const _: () = assert!(AVX2_TOKENS[0] <= MOST_TOKENS);
/// AMX takes registers in turn, four groups long.
const AMX_GROUPS: usize = 5;
const MOST_GROUPS: usize = AMX_GROUPS;
/// An odd length, for what works on vectors.
const LEN: usize = 45;
/// Groups that are quantized together, and an odd length behind them.
const GROUPS: usize = 18;
const QUANTIZED: usize = 16 * GROUP + LEN;
const HEAD: usize = 32;
const SLOTS: usize = 16;

/// FNV-1a over the bits of numbers, four bytes at a time.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
    fn word(&mut self, word: u32) {
        self.0 = (self.0 ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3);
    }
    fn floats(&mut self, x: &[f32]) {
        x.iter().for_each(|x| self.word(x.to_bits()));
    }
}

/// Numbers that are the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn bits(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as u32
    }
    /// Between −1 and 1.
    fn float(&mut self) -> f32 {
        self.bits() as f32 / (1u32 << 30) as f32 - 1.0
    }
    fn floats<const N: usize>(&mut self) -> [f32; N] {
        core::array::from_fn(|_| self.float())
    }
    /// ±127 or less, and every pair of nibbles but 8 and 0.
    fn byte(&mut self) -> u8 {
        match (self.bits() >> 8) as u8 {
            0x80 => 0x81,
            byte => byte,
        }
    }
    fn int8s<const N: usize>(&mut self) -> [i8; N] {
        core::array::from_fn(|_| self.byte() as i8)
    }
}

fn layer_norm(kernels: &Kernels) -> u64 {
    let (mut hash, mut n) = (Hash::new(), Numbers(1));
    let (x, weight, bias): ([_; LEN], [_; LEN], [_; LEN]) = (n.floats(), n.floats(), n.floats());
    let mut out = [0.0; LEN];
    kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
    hash.floats(&out);
    hash.0
}

fn quantize(kernels: &Kernels) -> u64 {
    let (mut hash, mut n) = (Hash::new(), Numbers(2));
    let x: [f32; QUANTIZED] = n.floats();
    let (mut q, mut scales, mut sums) = ([0; GROUPS * GROUP], [0.0; GROUPS], [0; GROUPS]);
    kernels.quantize(&x, GROUP, &mut q, &mut scales, &mut sums);
    q.iter().for_each(|&q| hash.word(q as u32));
    hash.floats(&scales);
    sums.iter().for_each(|&sum| hash.word(sum as u32));
    hash.0
}

/// Products of so many tokens with a record, in turn.
fn products<'a>(
    kernels: &Kernels,
    tokens: &[usize],
    lhs: impl Fn(usize) -> Lhs<'a>,
    encoding: Encoding,
    record: &[u8],
) -> u64 {
    let mut hash = Hash::new();
    for &m in tokens {
        let mut out = [0.0; MOST_TOKENS * ROWS];
        let out = &mut out[..m * ROWS];
        kernels.matmul(&lhs(m), encoding, record, &mut Columns::new(out, ROWS));
        hash.floats(out);
    }
    hash.0
}

fn quant_products(kernels: &Kernels, encoding: Encoding, set: Isa) -> u64 {
    let (tokens, groups) = match set {
        Isa::Amx => (AMX_TOKENS, AMX_GROUPS),
        Isa::Avx2 => (AVX2_TOKENS, COLS / GROUP),
        _ => (TOKENS, COLS / GROUP),
    };
    let mut n = Numbers(3);
    let q: [i8; MOST_TOKENS * MOST_GROUPS * GROUP] = n.int8s();
    let scales: [f32; MOST_TOKENS * MOST_GROUPS] = n.floats();
    let sums: [i32; MOST_TOKENS * MOST_GROUPS] = core::array::from_fn(|group| {
        q[group * GROUP..(group + 1) * GROUP].iter().map(|&q| i32::from(q)).sum()
    });
    let mut record = [Line::ZERO; Line::count_for(ROWS * (4 + MOST_GROUPS * (1 + GROUP)))];
    let bytes = bytemuck::cast_slice_mut::<_, u8>(&mut record);
    bytes.iter_mut().for_each(|byte| *byte = n.byte());
    bytes[..tile::ROW_SCALES_BYTES].copy_from_slice(bytemuck::cast_slice(&n.floats::<ROWS>()));
    let lhs = |m| {
        let all = m * groups;
        let (q, scales, sums) = (&q[..all * GROUP], &scales[..all], &sums[..all]);
        Lhs::Quant(QuantLhs { q, scales, sums, m, groups })
    };
    products(kernels, tokens, lhs, encoding, &bytes[..tile::record_len(encoding, groups * GROUP)])
}

fn float_products(kernels: &Kernels, encoding: Encoding) -> u64 {
    let mut n = Numbers(4);
    let x: [f32; MOST_TOKENS * COLS] = n.floats();
    let mut record = [Line::ZERO; Line::count_for(ROWS * COLS * 4)];
    if encoding == Encoding::F32 {
        bytemuck::cast_slice_mut(&mut record).iter_mut().for_each(|x: &mut f32| *x = n.float());
    } else {
        let halves = bytemuck::cast_slice_mut(&mut record).iter_mut();
        halves.for_each(|x: &mut u16| *x = scalar::f32_to_f16(n.float()));
    }
    let record = &bytemuck::cast_slice(&record)[..tile::record_len(encoding, COLS)];
    let lhs = |m| Lhs::Float(FloatLhs { x: &x[..m * COLS], m, cols: COLS });
    products(kernels, TOKENS, lhs, encoding, record)
}

fn pointwise(kernels: &Kernels) -> u64 {
    let (mut hash, mut n) = (Hash::new(), Numbers(5));
    let x: [f32; LEN] = n.floats::<LEN>().map(|x| 5.0 * x);
    let bias: [f32; LEN] = n.floats();
    for activation in [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu] {
        let mut x = x;
        kernels.activate(activation, &mut x);
        hash.floats(&x);
        kernels.activate_biased(activation, &mut x, &bias);
        kernels.add(&mut x, &bias);
        kernels.add_residual(&mut x, &bias, &bias);
        hash.floats(&x);
    }
    let mut x = x;
    hash.word(kernels.softmax_unnormalized(&mut x).to_bits());
    hash.floats(&x);
    hash.0
}

#[derive(Clone, Copy, PartialEq)]
enum KvKind {
    F32,
    F16,
    Q8,
}

fn attention(kernels: &Kernels, kind: KvKind) -> u64 {
    let (mut hash, mut n) = (Hash::new(), Numbers(6));
    let (mut scores, mut out) = ([0.0; SLOTS], [0.0; HEAD]);
    if kind == KvKind::Q8 {
        let (keys, values): ([_; SLOTS * HEAD], [_; SLOTS * HEAD]) = (n.int8s(), n.int8s());
        let scales: [f32; SLOTS] = n.floats::<SLOTS>().map(f32::abs);
        let cache = HeadCache::Q8 {
            keys: &keys,
            key_scales: &scales,
            values: &values,
            value_scales: &scales,
        };
        let query: [i8; HEAD] = n.int8s();
        kernels.scores_q8(&query, &cache, &[1e-3], &mut scores);
        hash.floats(&scores);
        let weights: [f32; SLOTS] = n.floats::<SLOTS>().map(f32::abs);
        let (mut high, mut low) = ([0; SLOTS], [0; SLOTS]);
        kernels.values_q8(&weights, &cache, 0.5, (&mut high, &mut low), None, &mut out);
    } else {
        let (keys, values): ([f32; SLOTS * HEAD], [f32; SLOTS * HEAD]) = (n.floats(), n.floats());
        let halves = [keys.map(scalar::f32_to_f16), values.map(scalar::f32_to_f16)];
        let cache = match kind {
            KvKind::F16 => HeadCache::F16 { keys: &halves[0], values: &halves[1] },
            _ => HeadCache::F32 { keys: &keys, values: &values },
        };
        let query: [f32; HEAD] = n.floats();
        kernels.scores(&query, &cache, 0.125, &mut scores);
        hash.floats(&scores);
        kernels.values(&n.floats::<SLOTS>(), &cache, 0.5, &mut out);
    }
    hash.floats(&out);
    hash.0
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::super::Table;
    use super::*;

    /// As NEON, but the last sum is rounded wrongly.
    static BROKEN_Q4: Table = Table { isa: Isa::Neon, matmul_q4, ..scalar::TABLE };
    /// As AVX2, but attention forgets the scale.
    static BROKEN_VALUES: Table = Table { isa: Isa::Avx2, values_f16, ..scalar::TABLE };

    fn matmul_q4(lhs: &QuantLhs<'_>, records: &[u8], dst: &mut Columns<'_>) {
        let specification = Kernels { table: &scalar::TABLE };
        specification.matmul(&Lhs::Quant(*lhs), Encoding::Q4, records, dst);
        let last = lhs.m - 1;
        let sum = &mut dst.row_mut(last)[ROWS - 1];
        *sum = f32::from_bits(sum.to_bits() ^ 1);
    }

    fn values_f16(weights: &[f32], _: f32, values: &[u16], out: &mut [f32]) {
        let cache = HeadCache::F16 { keys: &[], values };
        Kernels { table: &scalar::TABLE }.values(weights, &cache, 1.0, out);
    }

    #[test]
    fn every_set_passes() {
        for set in Isa::available().filter_map(Kernels::for_isa) {
            let start = std::time::Instant::now();
            assert_eq!(set.self_test(), Ok(()));
            std::println!("self-test of {}: {:?}", set.isa(), start.elapsed());
        }
        let best = Kernels::best_tested(|error| panic!("{error}"));
        assert_eq!(best.isa(), Isa::best());
    }

    #[test]
    fn broken_kernels_are_found_and_passed_over() {
        let broken = [&BROKEN_Q4, &BROKEN_VALUES].map(|table| Kernels { table });
        let names = broken.map(|set| set.self_test().unwrap_err().kernel);
        assert_eq!(names, ["products with q4 weights", "attention over f16"]);

        let mut failed = Vec::new();
        let good = Kernels { table: &scalar::TABLE };
        let chosen = first_that_passes([broken[0], broken[1], good].into_iter(), |error| {
            failed.push(error.isa);
        });
        assert_eq!((chosen.isa(), failed), (Isa::Scalar, Vec::from([Isa::Neon, Isa::Avx2])));
        let chosen = first_that_passes(broken.into_iter(), |_| {});
        assert_eq!(chosen.isa(), Isa::Scalar);
    }
}
