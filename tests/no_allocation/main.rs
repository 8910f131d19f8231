//! Generating allocates nothing, with any strategy and on several threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{
    BeamOptions, ContrastiveOptions, DecodingOptions, SamplingOptions, SequenceBias, StopTexts,
    Strategy,
};
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Quiet, bundled, nan_lines, with_session};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nothing_is_allocated_after_the_start() {
    let file = Converted::new(&bundled(), Encoding::Q4);
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
    let prompt = [3478, 813, 258, 542, 458];
    for options in [
        plain,
        DecodingOptions { prompt_lookup_num_tokens: 8, ..plain },
        DecodingOptions { strategy: sample, ..plain },
        DecodingOptions { strategy: sample, num_return_sequences: 4, ..plain },
        DecodingOptions { strategy: Strategy::Beam(BeamOptions::default()), ..plain },
        DecodingOptions { strategy: Strategy::Contrastive(ContrastiveOptions::default()), ..plain },
    ] {
        let threads = 2;
        let pool = ThreadPool::new(threads).unwrap();
        let base = SessionOptions { threads, kv: KvType::Q8, ..SessionOptions::new(&config) };
        let session = options.session_options(&base, prompt.len());
        let mut own = nan_lines(Generator::lines(&config, &options, prompt.len()).unwrap());
        let mut generator = Generator::new(&config, &options, prompt.len(), &mut own).unwrap();
        let allocated = with_session(model, &session, |session| {
            // Threads that start may allocate.
            generator.run(session, &pool, &prompt, &mut Quiet).unwrap();
            session.truncate(0);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            generator.run(session, &pool, &prompt, &mut Quiet).unwrap();
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        assert_eq!(allocated, 0, "{:?}", options.strategy);
        assert_eq!(generator.sequences().next().unwrap().tokens.len(), 60);
    }
}
