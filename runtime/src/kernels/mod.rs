//! The inner loops, one set per instruction set, chosen once at start.
//!
//! [`scalar`] is the specification. Every other set gives the same bits: integer sums are exact,
//! each output row accumulates its groups in order with fused multiply-add, and sums over a vector
//! use sixteen virtual lanes and one fixed tree ([`crate::math::sum_tree`]).
//!
//! [`Kernels`] is a table of function pointers behind safe methods that check every length, so a
//! kernel may rely on them.
#![allow(unsafe_code)]

#[cfg(any(
    all(target_arch = "x86_64", target_feature = "sse2"),
    all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
))]
#[macro_use]
mod table;

#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
pub(crate) mod aarch64;
pub mod dst;
#[cfg(any(
    all(target_arch = "x86_64", target_feature = "sse2"),
    all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
))]
mod generic;
#[cfg(feature = "bench")]
pub mod peak;
pub mod scalar;
mod self_test;
// Without SSE2, as in kernels of operating systems, no vector has a register.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod x86_64;
#[cfg(all(
    target_arch = "x86_64",
    target_pointer_width = "64",
    target_feature = "sse2",
    feature = "std"
))]
pub(crate) use x86_64::amx::is_available as amx_is_available;

#[cfg(test)]
mod conformance;

pub use dst::Columns;
pub use self_test::SelfTestError;

use crate::config::Activation;
use crate::format::Encoding;
use crate::isa::Isa;
use crate::quant::tile::{self, GROUP, ROWS};

/// Activations of `m` tokens, quantized in groups of 32: `x = q · scale`.
#[derive(Clone, Copy, Debug)]
pub struct QuantLhs<'a> {
    /// `[m][groups * 32]`, each in ±127
    pub q: &'a [i8],
    /// `[m][groups]`
    pub scales: &'a [f32],
    /// `[m][groups]`: sums of `q`
    pub sums: &'a [i32],
    /// Tokens.
    pub m: usize,
    /// Groups of 32 inputs.
    pub groups: usize,
}

/// Activations of `m` tokens in f32, `[m][cols]`.
#[derive(Clone, Copy, Debug)]
pub struct FloatLhs<'a> {
    /// `[m][cols]`
    pub x: &'a [f32],
    /// Tokens.
    pub m: usize,
    /// Inputs.
    pub cols: usize,
}

/// Left-hand side of a matrix product, in the form that the weights' encoding asks for.
#[derive(Clone, Copy, Debug)]
pub enum Lhs<'a> {
    /// For f32 and f16 weights.
    Float(FloatLhs<'a>),
    /// For q8, q4 and q3 weights.
    Quant(QuantLhs<'a>),
}

/// Keys and values of one head, as far as they are written.
///
/// `hd` is the head size rounded up to a multiple of 16, `slots` a multiple of 64.
#[derive(Clone, Copy, Debug)]
pub enum HeadCache<'a> {
    /// f32
    F32 {
        /// `[slots / 16][hd][16]`
        keys: &'a [f32],
        /// `[slots][hd]`
        values: &'a [f32],
    },
    /// f16 bits
    F16 {
        /// `[slots / 16][hd][16]`
        keys: &'a [u16],
        /// `[slots][hd]`
        values: &'a [u16],
    },
    /// int8 with one scale per vector
    Q8 {
        /// `[slots / 16][hd / 4][16][4]`
        keys: &'a [i8],
        /// `[slots]`
        key_scales: &'a [f32],
        /// `[slots / 4][hd][4]`
        values: &'a [i8],
        /// `[slots]`
        value_scales: &'a [f32],
    },
}

/// What will be read behind the keys of a head, or behind its values, for kernels that ask for it meanwhile.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "only x86-64 asks")]
pub(crate) struct Behind<'a> {
    vectors: &'a [i8],
    /// Behind keys, `[slots]`.
    scales: &'a [f32],
}

/// Largest weight of a value in q8 attention: 127 · 128, so that both 7-bit halves fit an i8.
pub(crate) const VALUE_WEIGHT_MAX: f32 = 16_256.0;

/// Tokens for which AVX2's products of many unpack a record once.
pub(crate) const AVX2_TILE: usize = 72;

type MatmulQuant = unsafe fn(&QuantLhs<'_>, &[u8], &mut Columns<'_>);
type MatmulFloat = unsafe fn(&FloatLhs<'_>, &[u8], &mut Columns<'_>);
type Quantize = unsafe fn(&[f32], usize, &mut [i8], &mut [f32], &mut [i32]);
type LayerNorm = unsafe fn(&[f32], &[f32], &[f32], f32, &mut [f32]);
type Pointwise = unsafe fn(&mut [f32], &[f32]);
type AddResidual = unsafe fn(&mut [f32], &[f32], &[f32]);
type ScoresFloat<T> = unsafe fn(&[f32], &[T], f32, &mut [f32]);
type ScoresQ8 = unsafe fn(&[i8], &[f32], &[i8], &[f32], Behind<'_>, &mut [f32]);
type Softmax = unsafe fn(&mut [f32], &[usize], &mut [f32]);
type ValuesFloat<T> = unsafe fn(&[f32], f32, &[T], &mut [f32]);
type WeighValues = unsafe fn(&[f32], &[f32], &mut [u8], &mut [u8]) -> f32;
type ValuesQ8 = unsafe fn(&[u8], &[u8], f32, &[i8], Behind<'_>, &mut [f32]);

/// The entries of a set of kernels; what each computes is said in [`scalar`].
struct Table {
    isa: Isa,
    matmul_q8: MatmulQuant,
    matmul_q4: MatmulQuant,
    matmul_q3: MatmulQuant,
    matmul_f32: MatmulFloat,
    matmul_f16: MatmulFloat,
    quantize: Quantize,
    layer_norm: LayerNorm,
    gelu_new: Pointwise,
    gelu: Pointwise,
    relu: Pointwise,
    silu: Pointwise,
    add: Pointwise,
    add_residual: AddResidual,
    scores_f32: ScoresFloat<f32>,
    scores_f16: ScoresFloat<u16>,
    scores_q8: ScoresQ8,
    softmax: Softmax,
    values_f32: ValuesFloat<f32>,
    values_f16: ValuesFloat<u16>,
    weigh_values: WeighValues,
    values_q8: ValuesQ8,
}

/// A set of kernels that this CPU can run: having one is the proof.
#[derive(Clone, Copy)]
pub struct Kernels {
    table: &'static Table,
}

impl core::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Kernels").field(&self.isa()).finish()
    }
}

impl Kernels {
    /// The kernels of an instruction set, if this CPU has it.
    pub fn for_isa(isa: Isa) -> Option<Self> {
        // SAFETY: (1) the CPU has just been asked.
        isa.is_available().then(|| unsafe { Self::for_isa_unchecked(isa) }).flatten()
    }

    /// The kernels of the fastest instruction set of this CPU.
    pub fn best() -> Self {
        Self::for_isa(Isa::best()).unwrap_or(Self { table: &scalar::TABLE })
    }

    /// The kernels of an instruction set, for callers without `std` who know their CPU. `None`
    /// on an architecture that has no such instructions, and for AMX without feature `std`.
    ///
    /// # Safety
    /// 1. The CPU has the instructions of `isa`, and the system lets the process use their registers.
    pub unsafe fn for_isa_unchecked(isa: Isa) -> Option<Self> {
        let table = match isa {
            Isa::Scalar => &scalar::TABLE,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Isa::Avx2 => &x86_64::avx2::TABLE,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
            Isa::Avx512Vnni => &x86_64::avx512vnni::TABLE,
            #[cfg(all(
                target_arch = "x86_64",
                target_pointer_width = "64",
                target_feature = "sse2",
                feature = "std"
            ))]
            Isa::Amx => &x86_64::amx::TABLE,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::Neon => &aarch64::neon::TABLE,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::Dotprod => &aarch64::dotprod::TABLE,
            #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
            Isa::I8mm => &aarch64::i8mm::TABLE,
            // Those of other architectures.
            _ => return None,
        };
        Some(Self { table })
    }

    /// Which instruction set these are for.
    pub fn isa(&self) -> Isa {
        self.table.isa
    }

    /// `dst[t][n] = Σ_k lhs[t][k] · w[n][k]` for the rows of `records`, a whole number of records
    /// of 16 rows each.
    ///
    /// # Panics
    /// If lengths do not fit each other, or the form of `lhs` not the encoding.
    pub fn matmul(&self, lhs: &Lhs<'_>, encoding: Encoding, records: &[u8], dst: &mut Columns<'_>) {
        let table = self.table;
        match (lhs, encoding) {
            (Lhs::Float(lhs), Encoding::F32 | Encoding::F16) => {
                assert!(lhs.cols > 0 && Some(lhs.x.len()) == lhs.m.checked_mul(lhs.cols));
                check_records(records, encoding, lhs.cols, lhs.m, dst);
                let kernel = match encoding {
                    Encoding::F32 => table.matmul_f32,
                    _ => table.matmul_f16,
                };
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { kernel(lhs, records, dst) }
            }
            (Lhs::Quant(lhs), Encoding::Q8 | Encoding::Q4 | Encoding::Q3) => {
                let groups = lhs.m.checked_mul(lhs.groups).expect("lengths that fit memory");
                assert!(lhs.scales.len() == groups && lhs.sums.len() == groups);
                assert!(lhs.groups > 0 && Some(lhs.q.len()) == groups.checked_mul(GROUP));
                let cols = lhs.groups * GROUP;
                check_records(records, encoding, cols, lhs.m, dst);
                let kernel = match encoding {
                    Encoding::Q8 => table.matmul_q8,
                    Encoding::Q4 => table.matmul_q4,
                    _ => table.matmul_q3,
                };
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { kernel(lhs, records, dst) }
            }
            _ => panic!("the left-hand side does not fit the weights' encoding"),
        }
    }

    /// Quantizes `x` in groups of `group` numbers; `group` is a multiple of 16 and the last group
    /// may be short. `q` is `[groups][group]`, and zero behind the end of `x`.
    ///
    /// # Panics
    /// If lengths do not fit each other.
    pub fn quantize(
        &self,
        x: &[f32],
        group: usize,
        q: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        let groups = x.len().div_ceil(group);
        assert!(group.is_multiple_of(16) && q.len() == groups * group);
        assert!(scales.len() == groups && sums.len() == groups);
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.quantize)(x, group, q, scales, sums) }
    }

    /// `out = (x − mean) / √(variance + eps) · weight + bias`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let n = x.len();
        assert!(n > 0 && weight.len() == n && bias.len() == n && out.len() == n);
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.layer_norm)(x, weight, bias, eps, out) }
    }

    /// The MLP's pointwise function, in place.
    pub fn activate(&self, activation: Activation, x: &mut [f32]) {
        self.activate_biased(activation, x, &[]);
    }

    /// `x = f(x + bias)` with the MLP's pointwise function, or `f(x)` where there is no bias.
    ///
    /// # Panics
    /// If there is a bias and the lengths differ.
    pub fn activate_biased(&self, activation: Activation, x: &mut [f32], bias: &[f32]) {
        assert!(bias.is_empty() || bias.len() == x.len());
        let kernel = match activation {
            Activation::GeluNew => self.table.gelu_new,
            Activation::Gelu => self.table.gelu,
            Activation::Relu => self.table.relu,
            Activation::Silu => self.table.silu,
        };
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { kernel(x, bias) }
    }

    /// `x += bias`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, x: &mut [f32], bias: &[f32]) {
        assert!(bias.len() == x.len());
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.add)(x, bias) }
    }

    /// `x += out + bias`
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add_residual(&self, x: &mut [f32], out: &[f32], bias: &[f32]) {
        assert!(out.len() == x.len() && bias.len() == x.len());
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.add_residual)(x, out, bias) }
    }

    /// `scores[slot] = query · key[slot] · scale` for every slot of `scores`, a multiple of 16.
    /// `query` is padded to the cache's head size.
    ///
    /// # Panics
    /// If lengths do not fit each other, or the cache is q8.
    pub fn scores(&self, query: &[f32], cache: &HeadCache<'_>, scale: f32, scores: &mut [f32]) {
        let needed = query.len().checked_mul(scores.len()).expect("lengths that fit memory");
        assert!(!query.is_empty() && query.len().is_multiple_of(16));
        assert!(scores.len().is_multiple_of(ROWS));
        match cache {
            HeadCache::F32 { keys, .. } => {
                assert!(keys.len() >= needed);
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { (self.table.scores_f32)(query, keys, scale, scores) }
            }
            HeadCache::F16 { keys, .. } => {
                assert!(keys.len() >= needed);
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { (self.table.scores_f16)(query, keys, scale, scores) }
            }
            HeadCache::Q8 { .. } => panic!("a q8 cache takes quantized queries"),
        }
    }

    /// The same for a q8 cache and any number of queries: `queries` is `[n][hd]`, `scores`
    /// `[n][slots]`, and `scales` has one number per query, which includes the query's own scale.
    ///
    /// # Panics
    /// If lengths do not fit each other, or the cache is not q8.
    pub fn scores_q8(
        &self,
        queries: &[i8],
        cache: &HeadCache<'_>,
        scales: &[f32],
        scores: &mut [f32],
    ) {
        let HeadCache::Q8 { keys, key_scales, values, value_scales } = cache else {
            panic!("only a q8 cache takes quantized queries")
        };
        let (n, hd) = (scales.len(), queries.len() / scales.len());
        let slots = scores.len() / n;
        assert!(queries.len() == n * hd && scores.len() == n * slots);
        assert!(hd > 0 && hd.is_multiple_of(16) && slots.is_multiple_of(ROWS));
        let needed = hd.checked_mul(slots).expect("lengths that fit memory");
        assert!(keys.len() >= needed && key_scales.len() >= slots);
        // A caller who wants scores alone need not have values.
        let value_scales = value_scales.get(..slots).unwrap_or(key_scales);
        let behind = Behind { vectors: values, scales: value_scales };
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.scores_q8)(queries, scales, keys, key_scales, behind, scores) }
    }

    /// Asks for numbers that are read soon: a hint, which changes no result. Nothing but on x86-64.
    #[inline]
    pub(crate) fn prefetch(&self, x: &[f32]) {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        if self.table.isa != Isa::Scalar {
            x86_64::prefetch(bytemuck::cast_slice(x));
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
        let _ = x;
    }

    /// Asks for what [`Kernels::values_q8`] reads first, to call before the weights of a single query are
    /// computed. (On CPUs whose [`Kernels::scores_q8`] asks by itself, this does nothing.)
    pub fn prefetch_values(&self, cache: &HeadCache<'_>, slots: usize) {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
        if let (HeadCache::Q8 { values, value_scales, .. }, false) =
            (cache, x86_64::ahead::is_needed())
        {
            let first = &values[..values.len().min(FIRST_VALUES)];
            x86_64::prefetch(bytemuck::cast_slice(&value_scales[..slots]));
            x86_64::prefetch(bytemuck::cast_slice(first));
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
        let _ = (cache, slots);
    }

    /// `x = exp(x − max x)`, in place; returns the sum.
    pub fn softmax_unnormalized(&self, x: &mut [f32]) -> f32 {
        let mut sum = 0.0;
        self.softmax_rows(x, &[x.len()], core::slice::from_mut(&mut sum));
        sum
    }

    /// The same for the first `lens[i]` numbers of each row of `x`, `[rows][any number]`; the sums
    /// go to `sums`.
    ///
    /// # Panics
    /// If lengths do not fit each other, or there are no rows.
    pub fn softmax_rows(&self, x: &mut [f32], lens: &[usize], sums: &mut [f32]) {
        let stride = x.len() / lens.len();
        assert!(x.len() == stride * lens.len() && sums.len() == lens.len());
        assert!(lens.iter().all(|&len| len <= stride));
        if stride == 0 {
            sums.fill(0.0);
            return;
        }
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe { (self.table.softmax)(x, lens, sums) }
    }

    /// `out = Σ_slot weights[slot] · value[slot] · scale`, over the slots of `weights`.
    ///
    /// # Panics
    /// If lengths do not fit each other, or the cache is q8.
    pub fn values(&self, weights: &[f32], cache: &HeadCache<'_>, scale: f32, out: &mut [f32]) {
        let needed = weights.len().checked_mul(out.len()).expect("lengths that fit memory");
        assert!(!out.is_empty() && out.len().is_multiple_of(16));
        match cache {
            HeadCache::F32 { values, .. } => {
                assert!(values.len() >= needed);
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { (self.table.values_f32)(weights, scale, values, out) }
            }
            HeadCache::F16 { values, .. } => {
                assert!(values.len() >= needed);
                // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
                unsafe { (self.table.values_f16)(weights, scale, values, out) }
            }
            HeadCache::Q8 { .. } => panic!("a q8 cache takes integer weights"),
        }
    }

    /// The same for a q8 cache: the weights, times the values' scales, become 14-bit integers
    /// relative to the largest. `high` and `low` are scratch for `weights.len()` bytes rounded up
    /// to a multiple of 16. `next` is the head whose scores come next, if there is one.
    ///
    /// # Panics
    /// If lengths do not fit each other, or the cache is not q8.
    pub fn values_q8(
        &self,
        weights: &[f32],
        cache: &HeadCache<'_>,
        scale: f32,
        (high, low): (&mut [u8], &mut [u8]),
        next: Option<&HeadCache<'_>>,
        out: &mut [f32],
    ) {
        let HeadCache::Q8 { values, value_scales, .. } = cache else {
            panic!("only a q8 cache takes integer weights")
        };
        let slots = weights.len().next_multiple_of(16);
        let needed = slots.checked_mul(out.len()).expect("lengths that fit memory");
        assert!(!out.is_empty() && out.len().is_multiple_of(16) && values.len() >= needed);
        assert!(value_scales.len() >= weights.len() && high.len() >= slots && low.len() >= slots);
        let (high, low) = (&mut high[..slots], &mut low[..slots]);
        if slots == 0 {
            out.fill(0.0);
            return;
        }
        let vectors = match next {
            Some(HeadCache::Q8 { keys, .. }) => keys,
            _ => &[][..],
        };
        let behind = Behind { vectors, scales: &[] };
        // SAFETY: (1) `self` proves the CPU; (2) lengths were checked just now.
        unsafe {
            let unit = (self.table.weigh_values)(weights, value_scales, high, low);
            (self.table.values_q8)(high, low, unit * scale, values, behind, out);
        }
    }
}

/// Bytes of values to ask for ahead: by then the hardware fetches by itself.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
const FIRST_VALUES: usize = 4096;

/// Proves that the records are whole and the destination has a column for each of their rows.
fn check_records(records: &[u8], encoding: Encoding, cols: usize, m: usize, dst: &mut Columns<'_>) {
    let record = tile::record_len(encoding, cols);
    assert!(records.len().is_multiple_of(record));
    assert!((records.as_ptr() as usize).is_multiple_of(64));
    assert_eq!(dst.width(), records.len() / record * ROWS);
    assert_eq!(dst.rows(), m);
}
