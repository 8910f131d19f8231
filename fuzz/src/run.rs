//! Open, look at everything, decode: what a program does with a file that somebody sent.

use pocketgpt_runtime::KvType;
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::{Session, Tap};
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

use crate::file::Aligned;
use crate::tokenizer;

/// Most memory that a session may ask for here.
const MEMORY: usize = 16 << 20;
/// Most weights that are multiplied with.
const WEIGHTS: u64 = 1 << 22;

/// Opens a file and, if it opens, verifies it, reads its tokenizer and decodes with it.
pub fn open_and_run(bytes: &[u8]) {
    let copy = Aligned::new(bytes);
    let Ok(file) = WeightFile::new(copy.bytes()) else { return };
    let correct = file.verify().is_ok();
    let _ = file.metadata();
    assert!(file.tensors().all(|tensor| tensor.bytes.len() as u64 == tensor.entry.len));
    if let Some(section) = file.tokenizer().expect("proven at open") {
        assert!(section.vocab_size() <= file.config().vocab_size);
        tokenizer::exercise(&section, "hello <|endoftext|> it's ß日本 ", correct);
    }
    decode(file, crc32fast::hash(bytes), correct);
}

/// Asks for everything that can be looked at.
struct Look;

impl Tap for Look {
    fn wants_attention(&mut self, _layer: usize) -> bool {
        true
    }

    fn attention(&mut self, _layer: usize, _head: usize, position: usize, weights: &[f32]) {
        assert!((1..=position + 1).contains(&weights.len()));
    }
}

/// A prompt and two steps, on the specification and on the fastest kernels. `choice` chooses the
/// session's options.
fn decode(file: WeightFile<'_>, choice: u32, correct: bool) {
    let config = *file.config();
    let choose = |shift: u32, n: usize| (choice >> shift) as usize % n;
    let window = 1 + choose(4, config.n_ctx.min(100) as usize);
    let options = SessionOptions {
        kv: [KvType::F32, KvType::F16, KvType::Q8][choose(0, 3)],
        window,
        batch: 1 + choose(8, 5),
        ..SessionOptions::new(&config)
    };
    let Ok(plan) = Plan::new(&config, &options) else { return };
    if plan.total_bytes() > MEMORY || config.parameter_count() > WEIGHTS {
        return;
    }
    let last = config.vocab_size - 1;
    let prompt = [0, last, last / 2];
    let mut memory = vec![Line::ZERO; plan.lines()];
    let [specified, fast] = [Isa::Scalar, Isa::best()].map(|isa| {
        let model = Gpt2::new(file, Kernels::for_isa(isa).expect("scalar, or what was found"));
        let mut session = Session::new(model, &options, &mut memory).expect("memory as planned");
        let prompt = &prompt[..session.remaining().min(3)];
        // Whoever looks sees the last block completed for all tokens, else it is for the last one.
        let looks = (isa == Isa::Scalar) == (choose(12, 2) == 0);
        let logits = match looks {
            true => session.feed_tapped(prompt, &Serial, &mut Look),
            false => session.feed(prompt, &Serial),
        };
        let mut all = logits.expect("room").to_vec();
        for token in [last, 0] {
            if session.remaining() > 0 {
                all.extend_from_slice(session.feed(&[token], &Serial).expect("room"));
            }
        }
        assert!(session.feed(&[config.vocab_size], &Serial).is_err());
        all
    });
    // Numbers that overflow are as good as any: only which kind of NaN comes out is left open.
    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    assert!(!correct || specified.iter().zip(&fast).all(same), "kernels differ");
}
