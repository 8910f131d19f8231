//! No kernel reads or writes a byte outside its buffers: each buffer touches a page that no one may
//! touch, once with its end and once with its beginning, so that one byte too many ends the test
//! with a signal. This sees every instruction set as it is, without tools.

#![cfg(all(unix, feature = "std"))]

use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use pocketgpt_runtime::config::Activation;
use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::{Columns, FloatLhs, HeadCache, Kernels, Lhs, QuantLhs};
use pocketgpt_runtime::quant::tile::{GROUP, ROWS, groups, record_len};

/// Which side of a buffer touches the forbidden page.
#[derive(Clone, Copy, Debug)]
enum Side {
    Begin,
    End,
}

/// Numbers at the edge of their memory.
struct Guarded<T> {
    map: *mut u8,
    map_len: usize,
    first: *mut T,
    len: usize,
}

impl<T: Pod> Guarded<T> {
    fn new(side: Side, len: usize, mut number: impl FnMut(usize) -> T) -> Self {
        // The largest page that a machine of ours has, so that it is a multiple of every other.
        const PAGE: usize = 1 << 16;
        let bytes = len * size_of::<T>();
        let inner = bytes.next_multiple_of(PAGE);
        let map_len = inner + 2 * PAGE;
        // SAFETY: fresh memory that nothing else uses; the pages made accessible are part of it.
        let map = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), map_len, libc::PROT_NONE, flags, -1, 0);
            assert!(map != libc::MAP_FAILED);
            let map = map.cast::<u8>();
            let access = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(map.add(PAGE).cast(), inner, access), 0);
            map
        };
        let first = match side {
            Side::Begin => PAGE,
            Side::End => PAGE + inner - bytes,
        };
        let first = map.wrapping_add(first).cast::<T>();
        let mut guarded = Self { map, map_len, first, len };
        guarded.iter_mut().enumerate().for_each(|(i, x)| *x = number(i));
        guarded
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` numbers inside the accessible pages, whose any bytes are a `Pod`; they
        // begin at a multiple of their size, as pages do and `bytes` is.
        unsafe { std::slice::from_raw_parts(self.first, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.first, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and no borrow is left.
        assert_eq!(unsafe { libc::munmap(self.map.cast(), self.map_len) }, 0);
    }
}

/// Runs a test on each instruction set and each side.
fn everywhere(test: impl Fn(Kernels, Side)) {
    for kernels in Isa::available().filter_map(Kernels::for_isa) {
        for side in [Side::Begin, Side::End] {
            test(kernels, side);
        }
    }
}

fn float(i: usize) -> f32 {
    (i as u32).wrapping_mul(2_654_435_761) as f32 / 4e9 - 0.5
}

const LENGTHS: [usize; 15] = [1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 257, 512];
/// Many tokens, and rows that are taken in pieces.
const LARGE: [(usize, usize, usize); 5] =
    [(64, 16, 2), (100, 25, 2), (257, 53, 2), (833, 71, 1), (1600, 64, 1)];

#[test]
fn matrix_products_stay_inside() {
    everywhere(|kernels, side| {
        for cols in LENGTHS {
            for (m, blocks) in [
                (1, 1),
                (1, 5),
                (2, 2),
                (3, 1),
                (4, 3),
                (5, 1),
                (7, 2),
                (8, 1),
                (9, 2),
                (13, 3),
                (17, 1),
            ] {
                matrix_product(kernels, side, cols, m, blocks);
            }
        }
        for (cols, m, blocks) in LARGE {
            matrix_product(kernels, side, cols, m, blocks);
        }
    });
}

fn matrix_product(kernels: Kernels, side: Side, cols: usize, m: usize, blocks: usize) {
    let width = blocks * ROWS;
    let mut out = Guarded::new(side, m * width, |_| f32::NAN);
    let x = Guarded::new(side, m * cols, float);
    for encoding in [Encoding::F32, Encoding::F16] {
        let records = Guarded::new(side, blocks * record_len(encoding, cols), |i| (i % 61) as u8);
        let lhs = Lhs::Float(FloatLhs { x: &x, m, cols });
        kernels.matmul(&lhs, encoding, &records, &mut Columns::new(&mut out, width));
    }
    let groups = groups(cols);
    let q = Guarded::new(side, m * groups * GROUP, |i| (i % 255) as i8);
    let scales = Guarded::new(side, m * groups, float);
    let sums = Guarded::new(side, m * groups, |i| i as i32);
    for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
        let records = Guarded::new(side, blocks * record_len(encoding, cols), |i| (i % 61) as u8);
        let lhs = Lhs::Quant(QuantLhs { q: &q, scales: &scales, sums: &sums, m, groups });
        kernels.matmul(&lhs, encoding, &records, &mut Columns::new(&mut out, width));
    }
}

#[test]
fn vectors_stay_inside() {
    everywhere(|kernels, side| {
        for len in LENGTHS {
            let x = Guarded::new(side, len, float);
            for group in [16, 32, 64] {
                let n = len.div_ceil(group);
                let mut q = Guarded::new(side, n * group, |_| 0i8);
                let mut scales = Guarded::new(side, n, |_| 0f32);
                let mut sums = Guarded::new(side, n, |_| 0i32);
                kernels.quantize(&x, group, &mut q, &mut scales, &mut sums);
            }
            let (weight, bias) = (Guarded::new(side, len, float), Guarded::new(side, len, float));
            let mut out = Guarded::new(side, len, |_| 0f32);
            kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
            for activation in
                [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu]
            {
                kernels.activate(activation, &mut out);
                kernels.activate_biased(activation, &mut out, &bias);
            }
            kernels.add(&mut out, &bias);
            kernels.add_residual(&mut out, &weight, &bias);
            kernels.softmax_unnormalized(&mut out);
            let mut rows = Guarded::new(side, 9 * len, float);
            kernels.softmax_rows(&mut rows, &[len; 9], &mut [0.0; 9]);
        }
    });
}

/// Head sizes as they are padded.
const HEADS: [usize; 5] = [32, 48, 64, 96, 128];

#[test]
fn attention_stays_inside() {
    everywhere(|kernels, side| {
        for hd in HEADS {
            for slots in [16, 32, 48, 64, 80, 128] {
                attention_scores(kernels, side, hd, slots);
                for seen in [1, 15, 16, slots - 1, slots] {
                    attention_values(kernels, side, hd, slots, seen);
                }
            }
        }
    });
}

fn attention_scores(kernels: Kernels, side: Side, hd: usize, slots: usize) {
    let query = Guarded::new(side, hd, float);
    let mut scores = Guarded::new(side, slots, |_| 0f32);
    let keys = Guarded::new(side, slots * hd, float);
    let half = Guarded::new(side, slots * hd, |i| (0x2000 + i % 999) as u16);
    let none: [f32; 0] = [];
    let float = HeadCache::F32 { keys: &keys, values: &none };
    kernels.scores(&query, &float, 0.125, &mut scores);
    kernels.scores(&query, &HeadCache::F16 { keys: &half, values: &[] }, 0.125, &mut scores);
    let q8 = Guarded::new(side, slots * hd, |i| (i % 255) as i8);
    let key_scales = Guarded::new(side, slots, |_| 0.01f32);
    let cache =
        HeadCache::Q8 { keys: &q8, key_scales: &key_scales, values: &[], value_scales: &none };
    for n in [1, 2, 3, 4, 5] {
        let queries = Guarded::new(side, n * hd, |i| (i % 255) as i8);
        let scales = Guarded::new(side, n, |_| 0.01f32);
        let mut scores = Guarded::new(side, n * slots, |_| 0f32);
        kernels.scores_q8(&queries, &cache, &scales, &mut scores);
    }
}

fn attention_values(kernels: Kernels, side: Side, hd: usize, slots: usize, seen: usize) {
    let weights = Guarded::new(side, seen, |_| 0.01f32);
    let mut out = Guarded::new(side, hd, |_| 0f32);
    let values = Guarded::new(side, seen * hd, float);
    let half = Guarded::new(side, seen * hd, |i| (0x2000 + i % 999) as u16);
    let none: [f32; 0] = [];
    let float = HeadCache::F32 { keys: &none, values: &values };
    kernels.values(&weights, &float, 0.5, &mut out);
    kernels.values(&weights, &HeadCache::F16 { keys: &[], values: &half }, 0.5, &mut out);
    let rounded = seen.next_multiple_of(16).min(slots);
    let q8 = Guarded::new(side, rounded * hd, |i| (i % 255) as i8);
    let value_scales = Guarded::new(side, seen, |_| 0.01f32);
    let cache =
        HeadCache::Q8 { keys: &[], key_scales: &none, values: &q8, value_scales: &value_scales };
    let mut high = Guarded::new(side, rounded, |_| 0u8);
    let mut low = Guarded::new(side, rounded, |_| 0u8);
    kernels.prefetch_values(&cache, seen);
    kernels.values_q8(&weights, &cache, 0.5, (&mut high, &mut low), Some(&cache), &mut out);
}
