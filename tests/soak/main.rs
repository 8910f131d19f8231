//! Long texts: they stay language, take no more memory than short ones, and are the same with every
//! policy.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, StopReason, Strategy};
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_runtime::{KvType, Overflow};
use pocketgpt_tests::counting::{Counting, allocations_so_far, apart, settle};
use pocketgpt_tests::{Converted, bundled, nan_lines, with_session};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pages of the program that are in memory, in bytes; nothing where the system does not tell.
fn resident_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(4096 * pages)
}

/// Counts what is allocated between the first and the last token.
struct Watch {
    tokens: usize,
    first: Option<usize>,
    last: usize,
}

impl Observer for Watch {
    fn token(&mut self, _: usize, _: u32) -> ControlFlow<()> {
        self.tokens += 1;
        self.last = allocations_so_far();
        self.first.get_or_insert(self.last);
        ControlFlow::Continue(())
    }
}

/// A sampled text of so many tokens.
fn write(file: &Converted, overflow: Overflow, tokens: usize) -> Vec<u32> {
    let (model, threads) = (file.model(), 2);
    let config = *model.config();
    let sampling = SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
    let options = DecodingOptions {
        strategy: Strategy::Sample(sampling),
        max_new_tokens: tokens,
        // The end of a text is a token like others: another text begins behind it.
        eos_token_id: None,
        overflow,
        seed: 17,
        ..DecodingOptions::new(&config)
    };
    let prompt = [config.eos_token_id.unwrap(), 3478, 813, 258, 542];
    let pool = ThreadPool::new(threads).unwrap();
    let base = SessionOptions { threads, kv: KvType::Q8, keep: 1, ..SessionOptions::new(&config) };
    let session = options.session_options(&base, prompt.len());
    // Full of NaN, so all pages are there from the start.
    let mut own = nan_lines(Generator::lines(&config, &options, prompt.len()).unwrap());
    let mut generator = Generator::new(&config, &options, prompt.len(), &mut own).unwrap();
    let mut watch = Watch { tokens: 0, first: None, last: 0 };
    with_session(model, &session, |session| {
        // Weights and threads come into memory; a thread that starts allocates, and on a busy machine
        // it starts late.
        for _ in 0..10 {
            session.feed(&prompt, &pool).unwrap();
            session.truncate(0);
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = resident_bytes();
        generator.run(session, &pool, &prompt, &mut watch).unwrap();
        let grown = resident_bytes().zip(before).map_or(0, |(now, then)| now.saturating_sub(then));
        // Stacks and the file's other pages come in late; 20,000 tokens of a growing cache would
        // be 30 MB.
        assert!(grown < 8 << 20, "{overflow}: {grown} bytes more after {tokens} tokens");
    });
    assert_eq!(watch.tokens, tokens);
    let allocations = watch.last - watch.first.unwrap();
    assert_eq!(allocations, 0, "{overflow}: tokens allocated something");
    let sequence = generator.sequences().next().unwrap();
    assert_eq!(sequence.stop_reason, StopReason::MaxNewTokens);
    sequence.tokens.to_vec()
}

/// Perplexity of each window of a text, under the model in f32.
fn perplexities(text: &[u32]) -> Vec<f64> {
    let file = Converted::new(&bundled(), Encoding::F32);
    let model = file.model();
    let options = SessionOptions { logit_rows: 32, ..SessionOptions::new(model.config()) };
    let n_ctx = model.config().n_ctx as usize;
    let window = |session: &mut pocketgpt_runtime::session::Session<'_, '_>, text: &[u32]| {
        let (mut nats, targets) = (0.0, &text[1..]);
        session.truncate(0);
        session
            .feed_all(&text[..targets.len()], &Serial, &mut |i, row| {
                let max = row.iter().fold(f32::MIN, |max, &x| max.max(x));
                let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
                nats += sum.ln() - f64::from(row[targets[i] as usize] - max);
            })
            .unwrap();
        (nats / targets.len() as f64).exp()
    };
    with_session(model, &options, |session| {
        text.chunks_exact(n_ctx).map(|text| window(session, text)).collect()
    })
}

/// What windows of 512 tokens are like that the model has drawn so within one context, with some room.
/// Texts that turn in circles are below, random tokens above 10,000.
const LANGUAGE: std::ops::Range<f64> = 4.0..25.0;

/// All allocations of the program are counted, so tests wait for each other.
fn one_at_a_time(tokens: usize) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _alone = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    apart(move || soak(tokens));
}

fn soak(tokens: usize) {
    let file = Converted::new(&bundled(), Encoding::Q8);
    settle();
    let text = write(&file, Overflow::Refill, tokens);
    assert!(write(&file, Overflow::Shadow, tokens) == text, "the policies' texts differ");
    let found = perplexities(&text);
    println!("perplexities of windows: {found:.2?}");
    assert!(found.iter().all(|perplexity| LANGUAGE.contains(perplexity)), "{found:?}");
    // It does not drift.
    let mean = |windows: &[f64]| windows.iter().sum::<f64>() / windows.len() as f64;
    let half = found.len() / 2;
    let drift = mean(&found[half..]) / mean(&found[..half]);
    println!("mean perplexity {:.2}, second half over first {drift:.3}", mean(&found));
    assert!((0.75..1.33).contains(&drift), "{drift}");
}

#[test]
fn a_few_windows_are_language() {
    one_at_a_time(4 * 512);
}

#[test]
#[ignore = "takes half a minute; cargo test -p pocketgpt-tests --test soak -- --ignored"]
fn twenty_thousand_tokens_are_language() {
    one_at_a_time(20_000);
}
