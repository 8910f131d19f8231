//! Generating allocates nothing, with any strategy and on several threads.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, SamplingOptions, SequenceBias, StopTexts,
    Strategy,
};
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_runtime::{KvType, Overflow};
use pocketgpt_tests::counting::{Counting, allocations, apart, settle};
use pocketgpt_tests::{Converted, Quiet, bundled, nan_lines, with_session};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated_after_the_start() {
    apart(every_strategy);
}

fn every_strategy() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))) > 0, "nothing is counted");
    let file = Converted::new(&bundled(), Encoding::Q4);
    settle();
    let model = file.model();
    let config = *model.config();
    let tokenizer = model.file().tokenizer().unwrap().unwrap();
    let stop = StopTexts::new(tokenizer, &["no such text", "nor this"]);
    let bias = [SequenceBias { tokens: &[3, 4], bias: 1.0 }];
    let sampling = SamplingOptions {
        temperature: 0.9,
        top_k: 100,
        top_p: 0.95,
        min_p: 0.001,
        typical_p: 0.99,
    };
    let plain = DecodingOptions {
        max_new_tokens: 60,
        min_new_tokens: 60,
        repetition_penalty: 1.1,
        no_repeat_ngram_size: 4,
        sequence_bias: &bias,
        stop: Some(&stop),
        ..DecodingOptions::new(&config)
    };
    let sample = Strategy::Sample(sampling);
    // The context begins anew twice.
    let past_the_context =
        DecodingOptions { max_new_tokens: 800, min_new_tokens: 800, strategy: sample, ..plain };
    let prompt = [3478, 813, 258, 542, 458];
    for options in [
        plain,
        DecodingOptions { prompt_lookup_num_tokens: 8, ..plain },
        DecodingOptions { strategy: sample, ..plain },
        DecodingOptions { strategy: sample, num_return_sequences: 4, ..plain },
        DecodingOptions { strategy: Strategy::Beam(BeamOptions::default()), ..plain },
        DecodingOptions { strategy: Strategy::Contrastive(ContrastiveOptions::default()), ..plain },
        DecodingOptions { overflow: Overflow::Refill, ..past_the_context },
        DecodingOptions { overflow: Overflow::Shadow, ..past_the_context },
        DecodingOptions {
            overflow: Overflow::Shadow,
            strategy: Strategy::Greedy,
            prompt_lookup_num_tokens: 8,
            ..past_the_context
        },
    ] {
        for threads in [1, 4] {
            let pool = ThreadPool::new(threads).unwrap();
            let base = SessionOptions { threads, kv: KvType::Q8, ..SessionOptions::new(&config) };
            let session = options.session_options(&base, prompt.len());
            let mut own = nan_lines(Generator::lines(&config, &options, prompt.len()).unwrap());
            let mut generator = Generator::new(&config, &options, prompt.len(), &mut own).unwrap();
            let allocated = with_session(model, &session, |session| {
                // Threads that start may allocate.
                generator.run(session, &pool, &prompt, &mut Quiet).unwrap();
                session.truncate(0);
                allocations(|| generator.run(session, &pool, &prompt, &mut Quiet).unwrap())
            });
            let case = (options.strategy, options.overflow);
            assert_eq!(allocated, 0, "{case:?}, {threads} threads");
            let written = generator.sequences().next().unwrap().tokens.len();
            assert_eq!(written, options.max_new_tokens);
        }
    }
}
