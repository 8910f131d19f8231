//! Each kernel on each instruction set: GB/s of weights for one token, multiply-adds per second
//! for many, the vector kernels, attention by the number of positions. First comes what the machine
//! gives at most, on one thread as all the others.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pocketgpt_benches::numbers;
use pocketgpt_runtime::config::Activation;
use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::peak::Peak;
use pocketgpt_runtime::kernels::{Columns, FloatLhs, HeadCache, Kernels, Lhs, QuantLhs};
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::quant::tile::{self, GROUP, ROWS};
use pocketgpt_runtime::roofline::Memory;

const ENCODINGS: [Encoding; 5] =
    [Encoding::Q3, Encoding::Q4, Encoding::Q8, Encoding::F16, Encoding::F32];
/// `n_embd` of the 124M shape.
const COLS: usize = 768;
/// Weights that no cache holds, and weights that L2 holds.
const FROM_MEMORY: usize = 64 << 20;
const FROM_CACHE: usize = 512 << 10;

fn sets() -> impl Iterator<Item = Kernels> {
    Isa::available().filter_map(Kernels::for_isa)
}

/// Records of some encoding with ordinary numbers in them, `bytes` of them or a little less.
fn records(encoding: Encoding, bytes: usize) -> Vec<Line> {
    let len = tile::record_len(encoding, COLS);
    let mut lines: Vec<Line> = bytemuck::zeroed_vec(bytes / len * len / Line::BYTES);
    let weights: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
    for record in weights.chunks_exact_mut(len) {
        match encoding {
            Encoding::F32 => record.copy_from_slice(bytemuck::cast_slice(&numbers(len / 4))),
            // 0x2c00..=0x2cff are f16 around 0.06.
            Encoding::F16 => record.iter_mut().enumerate().for_each(|(i, b)| {
                *b = if i % 2 == 0 { i as u8 } else { 0x2c };
            }),
            Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => {
                record.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 37 % 127) as u8);
                let scales: &[u8] = bytemuck::cast_slice(&[0.01f32; ROWS]);
                record[..tile::ROW_SCALES_BYTES].copy_from_slice(scales);
            }
        }
    }
    lines
}

/// Activations of `m` tokens and what becomes of them.
struct Input {
    m: usize,
    x: Vec<f32>,
    q: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

impl Input {
    fn new(m: usize) -> Self {
        let (x, groups) = (numbers(m * COLS), m * COLS / GROUP);
        let (mut q, mut scales, mut sums) = (vec![0; m * COLS], vec![0.0; groups], vec![0; groups]);
        Kernels::best().quantize(&x, GROUP, &mut q, &mut scales, &mut sums);
        Self { m, x, q, scales, sums }
    }

    fn lhs(&self, encoding: Encoding) -> Lhs<'_> {
        let m = self.m;
        match encoding {
            Encoding::F32 | Encoding::F16 => Lhs::Float(FloatLhs { x: &self.x, m, cols: COLS }),
            Encoding::Q8 | Encoding::Q4 | Encoding::Q3 => Lhs::Quant(QuantLhs {
                q: &self.q,
                scales: &self.scales,
                sums: &self.sums,
                m,
                groups: COLS / GROUP,
            }),
        }
    }
}

/// Reading alone, and multiplying in registers alone.
fn limits(c: &mut Criterion) {
    const ROUNDS: u32 = 1000;
    let memory = Memory::new(FROM_MEMORY).expect("64 MB");
    let mut group = c.benchmark_group("limits");
    for kernels in sets() {
        let peak = kernels.peak();
        for (name, bytes) in [("read from memory", FROM_MEMORY), ("read from cache", FROM_CACHE)] {
            let lines = &memory.lines()[..bytes / Line::BYTES];
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(BenchmarkId::new(name, kernels.isa()), |b| {
                b.iter(|| peak.read(black_box(lines)));
            });
        }
        let multiply_i8: fn(&Peak, u32) -> u64 = Peak::multiply_i8;
        for (name, multiply) in
            [("multiply-adds in int8", multiply_i8), ("multiply-adds in f32", Peak::multiply_f32)]
        {
            group.throughput(Throughput::Elements(multiply(&peak, ROUNDS)));
            group.bench_function(BenchmarkId::new(name, kernels.isa()), |b| {
                b.iter(|| multiply(&peak, black_box(ROUNDS)));
            });
        }
    }
    group.finish();
}

fn matmul(
    c: &mut Criterion,
    name: &str,
    bytes: usize,
    m: usize,
    throughput: fn(u64, u64) -> Throughput,
) {
    let mut group = c.benchmark_group(name);
    let input = Input::new(m);
    for encoding in ENCODINGS {
        let lines = records(encoding, bytes);
        let weights: &[u8] = bytemuck::cast_slice(&lines);
        let width = weights.len() / tile::record_len(encoding, COLS) * ROWS;
        let mut out = vec![0.0; m * width];
        group.throughput(throughput(weights.len() as u64, (m * width * COLS) as u64));
        for kernels in sets() {
            // Scalar code on 64 MB takes a second: less of it says the same.
            if kernels.isa() == Isa::Scalar && bytes > 8 << 20 {
                continue;
            }
            let id = BenchmarkId::new(encoding.name(), kernels.isa());
            group.bench_function(id, |b| {
                b.iter(|| {
                    let mut dst = Columns::new(&mut out, width);
                    kernels.matmul(&input.lhs(encoding), encoding, black_box(weights), &mut dst);
                });
            });
        }
    }
    group.finish();
}

fn gemv(c: &mut Criterion) {
    matmul(c, "gemv from memory", FROM_MEMORY, 1, |bytes, _| Throughput::Bytes(bytes));
    matmul(c, "gemv from cache", FROM_CACHE, 1, |bytes, _| Throughput::Bytes(bytes));
}

fn gemm(c: &mut Criterion) {
    matmul(c, "gemm of 128 tokens (multiply-adds)", 1 << 20, 128, |_, macs| {
        Throughput::Elements(macs)
    });
}

fn vectors(c: &mut Criterion) {
    let mut group = c.benchmark_group("vectors of 768");
    group.throughput(Throughput::Elements(COLS as u64));
    let (x, w) = (numbers(COLS), numbers(COLS));
    for kernels in sets() {
        let mut out = x.clone();
        group.bench_function(BenchmarkId::new("layer_norm", kernels.isa()), |b| {
            b.iter(|| kernels.layer_norm(black_box(&x), &w, &w, 1e-5, &mut out));
        });
        group.bench_function(BenchmarkId::new("gelu_new", kernels.isa()), |b| {
            b.iter(|| {
                out.copy_from_slice(black_box(&x));
                kernels.activate(Activation::GeluNew, &mut out);
            });
        });
        group.bench_function(BenchmarkId::new("softmax", kernels.isa()), |b| {
            b.iter(|| {
                out.copy_from_slice(black_box(&x));
                kernels.softmax_unnormalized(&mut out)
            });
        });
        let mut input = Input::new(1);
        group.bench_function(BenchmarkId::new("quantize", kernels.isa()), |b| {
            b.iter(|| {
                let (q, scales, sums) = (&mut input.q, &mut input.scales, &mut input.sums);
                kernels.quantize(black_box(&x), GROUP, q, scales, sums);
            });
        });
    }
    group.finish();
}

/// One query of one head against a cache of this many positions: scores, softmax, values.
fn attention(c: &mut Criterion) {
    const HEAD: usize = 64;
    let mut group = c.benchmark_group("attention of a head");
    for slots in [16usize, 64, 256, 1024] {
        // A cache has room for whole tiles of 64.
        let room = slots.next_multiple_of(64);
        let (floats, scales) = (numbers(room * HEAD), vec![0.01; room]);
        let halves = vec![0x2c10u16; room * HEAD];
        let bytes: Vec<i8> = (0..room * HEAD).map(|i| (i * 37 % 255) as u8 as i8).collect();
        let (query, query8) = (numbers(HEAD), vec![5i8; HEAD]);
        let caches = [
            ("f32", 8 * HEAD, HeadCache::F32 { keys: &floats, values: &floats }),
            ("f16", 4 * HEAD, HeadCache::F16 { keys: &halves, values: &halves }),
            (
                "q8",
                2 * HEAD + 8,
                HeadCache::Q8 {
                    keys: &bytes,
                    key_scales: &scales,
                    values: &bytes,
                    value_scales: &scales,
                },
            ),
        ];
        for (name, bytes, cache) in &caches {
            group.throughput(Throughput::Bytes((slots * bytes) as u64));
            for kernels in sets() {
                let (mut scores, mut out) = (vec![0.0; slots], [0.0; HEAD]);
                let (mut high, mut low) = (vec![0; slots], vec![0; slots]);
                let id = BenchmarkId::new(format!("{name} {}", kernels.isa()), slots);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        if let HeadCache::Q8 { .. } = cache {
                            kernels.scores_q8(black_box(&query8), cache, &[0.01], &mut scores);
                            let sum = kernels.softmax_unnormalized(&mut scores);
                            let halves = (&mut high[..], &mut low[..]);
                            kernels.values_q8(&scores, cache, 1.0 / sum, halves, None, &mut out);
                        } else {
                            kernels.scores(black_box(&query), cache, 0.1, &mut scores);
                            let sum = kernels.softmax_unnormalized(&mut scores);
                            kernels.values(&scores, cache, 1.0 / sum, &mut out);
                        }
                    });
                });
            }
        }
    }
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(1500))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = configured();
    targets = limits, gemv, gemm, vectors, attention
}
criterion_main!(benches);
