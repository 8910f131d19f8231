//! A token allocates nothing, and neither does looking inside. One test, in a program of its own:
//! what is counted is every allocation of the program.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::parallel::{Parallel, Serial};
use pocketgpt_runtime::pool::ThreadPool;
use pocketgpt_runtime::session::{Session, Tap};
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::counting::{Counting, allocations, apart, settle};
use pocketgpt_tests::{Converted, bits, bundled, memory};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Adds up all that can be seen, in memory that it has already.
struct Sums {
    hidden: Vec<f64>,
    attention: Vec<f64>,
}

impl Tap for Sums {
    fn hidden(&mut self, layer: usize, _: usize, rows: &[f32]) {
        self.hidden[layer] += rows.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    fn wants_attention(&mut self, _: usize) -> bool {
        true
    }
    fn attention(&mut self, layer: usize, _: usize, _: usize, weights: &[f32]) {
        self.attention[layer] += weights.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
}

#[test]
fn tokens_and_taps_allocate_nothing_and_change_nothing() {
    apart(tokens_and_taps);
}

fn tokens_and_taps() {
    assert!(allocations(|| drop(std::hint::black_box(vec![0u8; 100]))) > 0, "nothing is counted");
    let pool = ThreadPool::new(2).unwrap();
    for to in [Encoding::Q8, Encoding::F32] {
        let file = Converted::new(&bundled(), to);
        settle();
        let model = file.model();
        let config = *model.config();
        let prompt: Vec<u32> = (0..50).map(|i| i * 37 % config.vocab_size).collect();
        for kv in [pocketgpt_runtime::KvType::F32, pocketgpt_runtime::KvType::Q8] {
            let options =
                SessionOptions { kv, threads: 2, batch: 16, ..SessionOptions::new(&config) };
            let mut memory = memory(&model, &options);
            let mut session = Session::new(model, &options, &mut memory).unwrap();
            let mut sums = Sums {
                hidden: vec![0.0; 1 + config.n_layer as usize],
                attention: vec![0.0; config.n_layer as usize],
            };
            for par in [&Serial as &dyn Parallel, &pool] {
                let mut plain = vec![0.0; config.vocab_size as usize];
                let counted = allocations(|| {
                    session.truncate(0);
                    session.feed(&prompt, par).unwrap();
                    plain.copy_from_slice(session.feed(&[7], par).unwrap());
                });
                assert_eq!(counted, 0, "{to:?} {kv:?}");

                let mut tapped = vec![0.0; config.vocab_size as usize];
                let counted = allocations(|| {
                    session.truncate(0);
                    session.feed_tapped(&prompt, par, &mut sums).unwrap();
                    tapped.copy_from_slice(session.feed_tapped(&[7], par, &mut sums).unwrap());
                });
                assert_eq!(counted, 0, "{to:?} {kv:?}, tapped");
                assert_eq!(bits(&plain), bits(&tapped));
            }
            // Each of 51 tokens has weights that are together 1, in each head, twice.
            let expected = 2.0 * 51.0 * f64::from(config.n_head);
            assert!(sums.attention.iter().all(|sum| (sum - expected).abs() < 1e-2));
            assert!(sums.hidden.iter().all(|&sum| sum != 0.0 && sum.is_finite()));
        }
    }
}
