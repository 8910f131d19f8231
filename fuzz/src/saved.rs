//! Saved sessions of one small model: whatever is taken up must run.

use std::sync::OnceLock;

use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::generate::{Generator, Observer};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::saved::{HEADER_LEN, SavedSession, SavedText};
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_runtime::{KvType, Overflow};

use crate::file::{Aligned, Fill, random_file};
use crate::numbers::Numbers;

/// A model of eight positions, of the size that the first seed gives.
fn model() -> Gpt2<'static> {
    static FILE: OnceLock<Aligned> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let of_eight = |seed| {
            let bytes = Aligned::new(&random_file(&mut Numbers::new(seed), Fill::Sound));
            let config = *WeightFile::new(bytes.bytes()).expect("a whole file").config();
            (config.n_ctx == 8 && config.n_embd < 100 && config.vocab_size < 40).then_some(bytes)
        };
        (0..).find_map(of_eight).expect("there are such")
    });
    Gpt2::new(WeightFile::new(file.bytes()).expect("a whole file"), Kernels::best())
}

/// Nobody looks on.
struct Quiet;
impl Observer for Quiet {}

/// Takes up a session and goes on with it.
pub fn take_up(bytes: &[u8]) {
    let model = model();
    let config = *model.config();
    let Ok(saved) = SavedSession::new(bytes, model.file()) else { return };
    let tokens: Vec<u32> = saved.tokens().collect();
    assert!(tokens.iter().all(|&id| id < config.vocab_size) && saved.new_tokens() <= tokens.len());
    let options = saved.session_options(&SessionOptions::new(&config));
    let plan = Plan::new(&config, &options).expect("its options were proven");
    let mut memory = vec![Line::ZERO; plan.lines()];
    let mut session = Session::new(model, &options, &mut memory).expect("memory as planned");
    if session.restore(&saved).is_err() {
        assert_eq!((session.fed(), session.position()), (0, 0));
        session.feed(&[0], &Serial).expect("it is as new");
        return;
    }
    // Saved again it is the same.
    let text = SavedText {
        tokens: &tokens,
        new_tokens: saved.new_tokens(),
        seed: saved.seed(),
        metadata: saved.metadata(),
    };
    let mut again = Vec::new();
    let Ok(()) = session.save(&text, |piece| {
        again.extend_from_slice(piece);
        Ok::<(), std::convert::Infallible>(())
    });
    assert!(again == bytes);

    let new_tokens = saved.new_tokens();
    let decoding = DecodingOptions {
        strategy: Strategy::Sample(SamplingOptions::default()),
        max_new_tokens: new_tokens + 3,
        overflow: options.overflow,
        seed: saved.seed(),
        ..DecodingOptions::new(&config)
    };
    let prompt = tokens.len() - new_tokens;
    let Ok(lines) = Generator::lines(&config, &decoding, prompt) else { return };
    let mut memory = vec![Line::ZERO; lines];
    let mut generator =
        Generator::new(&config, &decoding, prompt, &mut memory).expect("memory as planned");
    // The context may be full, and numbers of the cache may be too large for finite logits.
    let _ = generator.resume(&mut session, &Serial, &tokens, new_tokens, &mut Quiet);
}

/// A session after `count` tokens, saved.
pub fn saved(kv: KvType, overflow: Overflow, window: usize, count: usize) -> Vec<u8> {
    let model = model();
    let config = *model.config();
    let keep = usize::from(window > 3);
    let options = SessionOptions { kv, overflow, window, keep, ..SessionOptions::new(&config) };
    let plan = Plan::new(&config, &options).expect("options within range");
    let mut memory = vec![Line::ZERO; plan.lines()];
    let mut session = Session::new(model, &options, &mut memory).expect("memory as planned");
    let tokens: Vec<u32> = (0..=count as u32).map(|i| i * 7 % config.vocab_size).collect();
    if count > 0 {
        session.feed(&tokens[..count], &Serial).expect("there is room");
    }
    let text = SavedText { tokens: &tokens, new_tokens: count / 2, seed: 1, metadata: "{}" };
    let mut bytes = Vec::new();
    let Ok(()) = session.save(&text, |piece| {
        bytes.extend_from_slice(piece);
        Ok::<(), std::convert::Infallible>(())
    });
    bytes
}

/// Makes length, model and checksums right.
pub fn seal(bytes: &mut [u8]) {
    let len = bytes.len();
    if len < HEADER_LEN + 4 {
        return;
    }
    let (model_len, model_crc) = model().file().identity();
    bytes[8..16].copy_from_slice(&(len as u64).to_le_bytes());
    bytes[16..24].copy_from_slice(&model_len.to_le_bytes());
    bytes[24..28].copy_from_slice(&model_crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[HEADER_LEN..len - 4]);
    bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
}

/// One mutation: its new length. `fuzz` is libFuzzer's own mutation.
pub fn mutate(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    fuzz: impl Fn(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = Numbers::new(seed.into());
    let size = match random.below(4) {
        0 => fuzz(data, size, max_size),
        // A number of the header: most of what is not one is refused at once.
        1 | 2 if size >= HEADER_LEN => {
            let at = 28 + 4 * random.below(15);
            let word = if random.below(2) == 0 { random.below(20) as u32 } else { random.word() };
            data[at..at + 4].copy_from_slice(&word.to_le_bytes());
            size
        }
        // Another length: more tokens, or less of the cache.
        3 if size > HEADER_LEN => {
            let len = HEADER_LEN + 4 * random.below((max_size.min(2 * size) - HEADER_LEN) / 4 + 1);
            data[size.min(len)..len].fill(0);
            len
        }
        _ => fuzz(data, size, max_size),
    };
    if random.below(16) != 0 {
        seal(&mut data[..size]);
    }
    size
}
