//! Whole tokens of a model of GPT-2's 124M shape: decoding and prefill, quantized against f32, and
//! each instruction set against scalar code, in one run; and what a long text costs with each type of
//! cache.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pocketgpt_benches::Models;
use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

/// How keys and values are kept unless a bench says otherwise: as exactly as the weights are.
fn default_kv(encoding: Encoding) -> KvType {
    let quantized = encoding.is_quantized();
    if quantized { KvType::Q8 } else { KvType::F32 }
}

/// Runs `f` with a session at position zero.
fn with_session(
    file: &MappedFile,
    kv: KvType,
    isa: Isa,
    threads: usize,
    f: impl FnOnce(&mut Session<'_, '_>),
) {
    let file = WeightFile::new(file.bytes()).expect("just written");
    let model = Gpt2::new(file, Kernels::for_isa(isa).expect("available"));
    let options = SessionOptions { kv, threads, ..SessionOptions::new(model.config()) };
    let lines = Plan::new(model.config(), &options).expect("possible options").lines();
    let mut memory: Vec<Line> = bytemuck::zeroed_vec(lines);
    f(&mut Session::new(model, &options, &mut memory).expect("as planned"));
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::new(threads).expect("threads")
}

fn tokens(c: &mut Criterion) {
    let models = Models::gpt2(&[Encoding::Q4, Encoding::Q8, Encoding::F32]);
    decode(c, &models);
    decode_deep(c, &models);
    prefill(c, &models);
}

fn decode(c: &mut Criterion, models: &Models) {
    let mut group = c.benchmark_group("decode a token");
    group.throughput(Throughput::Elements(1));
    for threads in [1, 2] {
        let pool = pool(threads);
        for isa in Isa::available() {
            for (encoding, file) in models.iter() {
                // Scalar code is the baseline of the quantized encodings, on one thread.
                if isa == Isa::Scalar && (threads > 1 || encoding == Encoding::F32) {
                    continue;
                }
                with_session(file, default_kv(encoding), isa, threads, |session| {
                    session.feed(&[1; 16], &pool).expect("fits");
                    let id = BenchmarkId::new(format!("{} {isa}", encoding.name()), threads);
                    group.bench_function(id, |b| {
                        b.iter(|| {
                            session.truncate(16);
                            session.feed(&[1], &pool).expect("fits")[0]
                        });
                    });
                });
            }
        }
    }
    group.finish();
}

/// Every token reads the whole cache on top of the weights.
fn decode_deep(c: &mut Criterion, models: &Models) {
    const DEPTH: usize = 1000;
    let mut group = c.benchmark_group(format!("decode a token after {DEPTH}"));
    group.throughput(Throughput::Elements(1));
    let pool = pool(1);
    for (encoding, file) in models.iter().filter(|model| model.0 != Encoding::Q8) {
        for kv in [KvType::Q8, KvType::F16, KvType::F32] {
            with_session(file, kv, Isa::best(), 1, |session| {
                session.feed(&[1; DEPTH], &pool).expect("fits");
                group.bench_function(BenchmarkId::new(encoding.name(), format!("kv {kv}")), |b| {
                    b.iter(|| {
                        session.truncate(DEPTH);
                        session.feed(&[1], &pool).expect("fits")[0]
                    });
                });
            });
        }
    }
    group.finish();
}

fn prefill(c: &mut Criterion, models: &Models) {
    let mut group = c.benchmark_group("prefill 128 tokens");
    group.throughput(Throughput::Elements(128));
    for threads in [1, 2] {
        let pool = pool(threads);
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            for (encoding, file) in models.iter() {
                with_session(file, default_kv(encoding), isa, threads, |session| {
                    let id = BenchmarkId::new(format!("{} {isa}", encoding.name()), threads);
                    group.bench_function(id, |b| {
                        b.iter(|| {
                            session.truncate(0);
                            session.feed(&[1; 128], &pool).expect("fits")[0]
                        });
                    });
                });
            }
        }
    }
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(3))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = configured();
    targets = tokens
}
criterion_main!(benches);
