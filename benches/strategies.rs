//! What a step of each strategy takes on a model of GPT-2's 124M shape: four beams, candidates or
//! sequences against one.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pocketgpt_benches::Models;
use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, SamplingOptions, Strategy,
};
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

/// Tokens written in one measurement, behind a prompt that has been read but for its last token.
const TOKENS: usize = 32;

struct Quiet;
impl Observer for Quiet {}

fn strategies(c: &mut Criterion) {
    let models = Models::gpt2(&[Encoding::Q4, Encoding::Q8]);
    let sampling = SamplingOptions { top_k: 40, ..SamplingOptions::default() };
    let mut group = c.benchmark_group("a step");
    group.throughput(Throughput::Elements(TOKENS as u64));
    for (encoding, file) in models.iter() {
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            for threads in [1, 2] {
                let file = WeightFile::new(file.bytes()).expect("just written");
                let model = Gpt2::new(file, Kernels::for_isa(isa).expect("available"));
                let pool = ThreadPool::new(threads).expect("threads");
                for (name, strategy, num_return_sequences) in [
                    ("greedy", Strategy::Greedy, 1),
                    ("4 beams", Strategy::Beam(BeamOptions::default()), 1),
                    ("4 candidates", Strategy::Contrastive(ContrastiveOptions::default()), 1),
                    ("sampled", Strategy::Sample(sampling), 1),
                    ("4 sequences", Strategy::Sample(sampling), 4),
                ] {
                    let options = DecodingOptions {
                        strategy,
                        num_return_sequences,
                        max_new_tokens: TOKENS,
                        eos_token_id: None,
                        ..DecodingOptions::new(model.config())
                    };
                    let name = format!("{name}, {} {isa}", encoding.name());
                    group.bench_function(BenchmarkId::new(name, threads), |b| {
                        let base = SessionOptions {
                            kv: KvType::Q8,
                            threads,
                            ..SessionOptions::new(model.config())
                        };
                        with_generator(model, &base, &options, |session, generator| {
                            let prompt: Vec<u32> = (1..17).collect();
                            session.feed(&prompt[..15], &pool).expect("fits");
                            b.iter(|| {
                                session.truncate(15);
                                generator.run(session, &pool, &prompt, &mut Quiet).expect("runs");
                            });
                        });
                    });
                }
            }
        }
    }
    group.finish();
}

fn with_generator(
    model: Gpt2<'_>,
    base: &SessionOptions,
    options: &DecodingOptions<'_>,
    f: impl FnOnce(&mut Session<'_, '_>, &mut Generator<'_, '_>),
) {
    let config = *model.config();
    let session_options = options.session_options(base, 16);
    let lines = Plan::new(&config, &session_options).expect("possible options").lines();
    let mut memory: Vec<Line> = bytemuck::zeroed_vec(lines);
    let mut session = Session::new(model, &session_options, &mut memory).expect("as planned");
    let lines = Generator::lines(&config, options, 16).expect("possible options");
    let mut memory: Vec<Line> = bytemuck::zeroed_vec(lines);
    let mut generator = Generator::new(&config, options, 16, &mut memory).expect("as planned");
    f(&mut session, &mut generator);
}

fn configured() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(2))
        .without_plots()
}

criterion_group! {
    name = benches;
    config = configured();
    targets = strategies
}
criterion_main!(benches);
