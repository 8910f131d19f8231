//! Sessions that were saved go on as if they had not stopped, and damaged files are refused.

use std::ops::ControlFlow;

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{
    BeamOptions, DecodingError, DecodingOptions, SamplingOptions, StopReason, Strategy,
};
use pocketgpt_runtime::generate::{GenerateError, Generator};
use pocketgpt_runtime::isa::Isa;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::saved::{HEADER_LEN, SavedError, SavedSession, SavedText};
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_runtime::{KvType, Overflow};
use pocketgpt_tests::{Converted, Quiet, bits, bundled, nan_lines, repository, tiny, with_session};

const ALL_KV: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8];
const PROMPT: [u32; 5] = [9, 2, 31, 3, 9];
const SEED: u64 = 3;

/// What a run leaves: the new tokens, and the logits behind one token more.
type Outcome = (Vec<u32>, Option<Vec<u32>>);

/// A run in memory full of NaN, from the beginning or from what was saved, and what is saved then.
fn run(
    model: Gpt2<'_>,
    base: &SessionOptions,
    options: &DecodingOptions<'_>,
    saved: Option<&[u8]>,
) -> (Outcome, Vec<u8>) {
    let config = *model.config();
    let saved = saved.map(|bytes| SavedSession::new(bytes, model.file()).unwrap());
    let (text, new_tokens): (Vec<u32>, _) = match &saved {
        Some(saved) => (saved.tokens().collect(), saved.new_tokens()),
        None => (PROMPT.to_vec(), 0),
    };
    let prompt = text.len() - new_tokens;
    let session = options.session_options(base, prompt);
    if let Some(saved) = &saved {
        let tail = saved.session_options(&session).tail;
        assert_eq!(saved.session_options(&session), SessionOptions { tail, ..session });
    }
    let mut own = nan_lines(Generator::lines(&config, options, prompt).unwrap());
    let mut generator = Generator::new(&config, options, prompt, &mut own).unwrap();
    with_session(model, &session, |session| {
        if let Some(saved) = &saved {
            // Whatever it has read before.
            session.feed(&[1, 2, 3], &Serial).unwrap();
            session.restore(saved).unwrap();
        }
        generator.resume(session, &Serial, &text, new_tokens, &mut Quiet).unwrap();
        let tokens = generator.sequences().next().unwrap().tokens.to_vec();
        let new_tokens = new_tokens + tokens.len();
        let text = [text, tokens.clone()].concat();
        let text = SavedText { tokens: &text, new_tokens, seed: SEED, metadata: "{\"a\": 1}" };
        let mut bytes = Vec::new();
        session
            .save(&text, |piece| {
                bytes.extend_from_slice(piece);
                Ok::<(), ()>(())
            })
            .unwrap();
        let next = session.feed(&[5], &Serial).ok().map(bits);
        ((tokens, next), bytes)
    })
}

fn options(model: &Gpt2<'_>, strategy: Strategy) -> DecodingOptions<'static> {
    DecodingOptions {
        strategy,
        eos_token_id: None,
        seed: SEED,
        repetition_penalty: 1.1,
        ..DecodingOptions::new(model.config())
    }
}

fn sampling() -> Strategy {
    Strategy::Sample(SamplingOptions { top_p: 0.9, ..SamplingOptions::default() })
}

/// A text in one run and in pieces of `cuts` tokens, each in a session of its own.
fn check(
    name: &str,
    file: &Converted,
    isas: [Isa; 2],
    base: &SessionOptions,
    options: &DecodingOptions<'_>,
    cuts: &[usize],
) {
    let all: usize = cuts.iter().sum();
    let whole = DecodingOptions { max_new_tokens: all, ..*options };
    let (expected, _) = run(file.model_on(isas[0]), base, &whole, None);
    assert_eq!(expected.0.len(), all);
    let (mut done, mut tokens, mut saved, mut next) = (0, Vec::new(), None, None);
    for (i, cut) in cuts.iter().enumerate() {
        done += cut;
        let part = DecodingOptions { max_new_tokens: done, ..*options };
        let model = file.model_on(isas[i % 2]);
        let ((more, logits), bytes) = run(model, base, &part, saved.as_deref());
        assert_eq!(more.len(), *cut, "{name}");
        tokens.extend(more);
        (saved, next) = (Some(bytes), logits);
    }
    assert_eq!((tokens, next), expected, "{name}");
}

#[test]
fn texts_go_on_as_if_they_had_not_stopped() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let isas = [Isa::best(), Isa::Scalar];
    for kv in ALL_KV {
        let base = SessionOptions { kv, ..SessionOptions::new(model.config()) };
        for strategy in [Strategy::Greedy, sampling()] {
            let plain = options(&model, strategy);
            for overflow in Overflow::ALL {
                let name = format!("{kv} {overflow}");
                let options = DecodingOptions { overflow, ..plain };
                // Positions end at 64: cuts before, at and behind a new beginning.
                let cuts: &[usize] = match overflow {
                    Overflow::Stop => &[1, 0, 40, 19],
                    _ => &[0, 30, 29, 1, 1, 31, 1, 100, 7],
                };
                check(&name, &file, isas, &base, &options, cuts);
                let lookup = DecodingOptions { prompt_lookup_num_tokens: 4, ..options };
                check(&format!("{name}, lookup"), &file, isas, &base, &lookup, cuts);
            }
            for (window, keep) in [(20, 0), (20, 3), (64, 5)] {
                let base = SessionOptions { window, keep, ..base };
                let name = format!("{kv}, window of {window} and {keep}");
                let overflow = Overflow::Shadow;
                check(&name, &file, isas, &base, &plain, &[5, 12, 20, 3]);
                let options = DecodingOptions { overflow, ..plain };
                check(&name, &file, isas, &base, &options, &[50, 12, 20, 90]);
            }
        }
    }
}

#[test]
fn heads_of_odd_sizes_are_restored() {
    for name in ["head-40", "head-128"] {
        let path = repository("tests/fixtures/variants").join(name);
        let file = Converted::without_tokenizer(&path, Encoding::Q8);
        let model = file.model();
        for kv in ALL_KV {
            let base = SessionOptions { kv, ..SessionOptions::new(model.config()) };
            let options = options(&model, sampling());
            check(name, &file, [Isa::best(); 2], &base, &options, &[4, 3, 5]);
        }
    }
}

#[test]
fn a_text_that_stopped_can_be_refilled() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let base = SessionOptions { keep: 2, ..SessionOptions::new(model.config()) };
    let stop = DecodingOptions { max_new_tokens: 60, ..options(&model, sampling()) };
    let refill = DecodingOptions { overflow: Overflow::Refill, max_new_tokens: 100, ..stop };
    let (_, bytes) = run(model, &base, &stop, None);
    let (expected, _) = run(model, &base, &refill, None);

    let saved = SavedSession::new(&bytes, model.file()).unwrap();
    let text: Vec<u32> = saved.tokens().collect();
    let mut own = nan_lines(Generator::lines(model.config(), &refill, PROMPT.len()).unwrap());
    let mut generator = Generator::new(model.config(), &refill, PROMPT.len(), &mut own).unwrap();
    with_session(model, &refill.session_options(&base, PROMPT.len()), |session| {
        session.restore(&saved).unwrap();
        generator.resume(session, &Serial, &text, 60, &mut Quiet).unwrap();
    });
    assert_eq!(generator.sequences().next().unwrap().tokens, &expected.0[60..]);
}

#[test]
fn a_prompt_is_read_once() {
    let file = Converted::new(&bundled(), Encoding::Q4);
    let model = file.model();
    let base = SessionOptions { kv: KvType::Q8, ..SessionOptions::new(model.config()) };
    let nothing = DecodingOptions { max_new_tokens: 0, ..options(&model, sampling()) };
    let (_, bytes) = run(model, &base, &nothing, None);
    let saved = SavedSession::new(&bytes, model.file()).unwrap();
    assert_eq!((saved.new_tokens(), saved.seed()), (0, SEED));
    assert_eq!(saved.metadata(), "{\"a\": 1}");
    // All but the last token are in the cache, from which any strategy can go on.
    assert_eq!((saved.header().fed, saved.tokens().len()), (4, 5));
    let beams = DecodingOptions {
        strategy: Strategy::Beam(BeamOptions::default()),
        max_new_tokens: 12,
        ..nothing
    };
    assert_eq!(run(model, &base, &beams, Some(&bytes)).0, run(model, &base, &beams, None).0);
    let config = model.config();
    let mut own = nan_lines(Generator::lines(config, &beams, 5).unwrap());
    let mut generator = Generator::new(config, &beams, 5, &mut own).unwrap();
    with_session(model, &beams.session_options(&base, 5), |session| {
        let error = generator.resume(session, &Serial, &PROMPT, 2, &mut Quiet);
        let Err(GenerateError::Decoding(DecodingError::Conflict { name, .. })) = error else {
            panic!("{error:?}")
        };
        assert_eq!(name, "new_tokens");
    });
}

#[test]
fn an_interrupted_text_goes_on() {
    let file = tiny(1, Encoding::Q4);
    let model = file.model();
    let base = SessionOptions::new(model.config());
    let options = DecodingOptions { max_new_tokens: 40, ..options(&model, sampling()) };
    let expected = run(model, &base, &options, None).0.0;
    let mut own = nan_lines(Generator::lines(model.config(), &options, 5).unwrap());
    let mut generator = Generator::new(model.config(), &options, 5, &mut own).unwrap();
    let bytes = with_session(model, &options.session_options(&base, 5), |session| {
        let mut told = 0;
        let mut enough = |_: u32| {
            told += 1;
            if told == 17 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        generator.run(session, &Serial, &PROMPT, &mut enough).unwrap();
        let sequence = generator.sequences().next().unwrap();
        assert_eq!(sequence.stop_reason, StopReason::Interrupted);
        let tokens = [&PROMPT, sequence.tokens].concat();
        let text = SavedText { tokens: &tokens, new_tokens: 17, seed: SEED, metadata: "" };
        let mut bytes = Vec::new();
        session
            .save(&text, |piece| {
                bytes.extend_from_slice(piece);
                Ok::<(), ()>(())
            })
            .unwrap();
        bytes
    });
    assert_eq!(run(model, &base, &options, Some(&bytes)).0.0, expected[17..]);
}

#[test]
fn what_saving_fails_with_is_told() {
    let file = tiny(1, Encoding::Q4);
    with_session(file.model(), &SessionOptions::new(file.model().config()), |session| {
        session.feed(&[1, 2], &Serial).unwrap();
        let text = SavedText { tokens: &[1, 2], new_tokens: 0, seed: 0, metadata: "" };
        let mut pieces = 0;
        let error = session.save(&text, |_| {
            pieces += 1;
            if pieces == 3 { Err("the disk is full") } else { Ok(()) }
        });
        assert_eq!((error, pieces), (Err("the disk is full"), 3));
    });
}

/// A saved session of 30 tokens whose context has begun anew, of the tiny model.
struct Saved {
    file: Converted,
    options: SessionOptions,
    bytes: Vec<u8>,
}

impl Saved {
    fn new(kv: KvType) -> Self {
        let file = tiny(1, Encoding::Q4);
        let model = file.model();
        let base = SessionOptions { kv, keep: 2, ..SessionOptions::new(model.config()) };
        let options = DecodingOptions {
            overflow: Overflow::Shadow,
            max_new_tokens: 90,
            ..options(&model, sampling())
        };
        let (_, bytes) = run(model, &base, &options, None);
        let options = options.session_options(&base, PROMPT.len());
        Self { file, options, bytes }
    }

    /// What is wrong with the file when some of its bytes are others, and its checksums right.
    #[track_caller]
    fn with(&self, change: impl FnOnce(&mut Vec<u8>)) -> SavedError {
        let mut bytes = self.bytes.clone();
        change(&mut bytes);
        mend(&mut bytes);
        self.error(&bytes)
    }

    #[track_caller]
    fn error(&self, bytes: &[u8]) -> SavedError {
        self.restore(bytes).unwrap_err()
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), SavedError> {
        let model = self.file.model();
        let saved = SavedSession::new(bytes, model.file())?;
        with_session(model, &self.options, |session| {
            let restored = session.restore(&saved);
            if restored.is_err() {
                assert_eq!((session.fed(), session.position()), (0, 0));
            }
            // Whatever was restored, it runs.
            let logits = session.feed(&[1, 2], &Serial).unwrap();
            assert!(restored.is_err() || logits.iter().all(|x| x.is_finite()));
            restored
        })
    }
}

/// Makes both checksums right.
fn mend(bytes: &mut [u8]) {
    if bytes.len() < HEADER_LEN + 4 {
        return;
    }
    let end = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[HEADER_LEN..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[test]
fn rejects_what_is_no_saved_session() {
    let saved = Saved::new(KvType::Q8);
    assert_eq!(saved.restore(&saved.bytes), Ok(()));
    assert_eq!(saved.error(&[]), SavedError::TooShort { len: 0 });
    assert_eq!(saved.error(&saved.bytes[..100]), SavedError::TooShort { len: 100 });
    assert_eq!(saved.with(|b| put(b, 0, b"PGPT")), SavedError::BadMagic);
    let two = SavedError::UnsupportedVersion { found: 2 };
    assert_eq!(saved.with(|b| put(b, 4, &[2])), two);
}

#[test]
fn rejects_damage() {
    let saved = Saved::new(KvType::Q8);
    let len = saved.bytes.len();
    for at in [9, 30, 50, 90, 126] {
        let mut bytes = saved.bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(saved.error(&bytes), SavedError::HeaderCrc);
    }
    for at in [HEADER_LEN, HEADER_LEN + 400, len / 2, len - 5, len - 1] {
        let mut bytes = saved.bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(saved.error(&bytes), SavedError::DataCrc);
    }
    for cut in [len - 1, len - 4, HEADER_LEN] {
        let error = SavedError::FileLength { expected: len as u64, found: cut as u64 };
        assert_eq!(saved.error(&saved.bytes[..cut]), error);
    }
    assert!(matches!(
        saved.error(&[&saved.bytes[..], &[0]].concat()),
        SavedError::FileLength { .. }
    ));
    // Where the parts end is not what the header says.
    for cut in [len - 1, len - 68, HEADER_LEN + 4] {
        let error = saved.with(|b| {
            b.truncate(cut);
            put(b, 8, &(cut as u64).to_le_bytes());
        });
        assert!(matches!(error, SavedError::PartLengths { .. }), "{error}");
    }
}

#[test]
fn rejects_numbers_that_do_not_fit() {
    let saved = Saved::new(KvType::Q8);
    let word = |at: usize, value: u32| saved.with(|b| put(b, at, &value.to_le_bytes()));
    let long = |at: usize, value: u64| saved.with(|b| put(b, at, &value.to_le_bytes()));
    assert_eq!(long(16, 1), SavedError::OtherModel);
    assert_eq!(word(24, 1), SavedError::OtherModel);
    assert_eq!(word(28, 3), SavedError::UnknownKvType { code: 3 });
    assert_eq!(word(32, 3), SavedError::UnknownOverflow { code: 3 });
    for window in [0, 65, u32::MAX] {
        assert_eq!(word(36, window), SavedError::Window { found: window });
    }
    for keep in [32, 64, u32::MAX] {
        assert!(matches!(word(40, keep), SavedError::Options(_)));
    }
    for tail in [0, 32, u32::MAX] {
        assert!(matches!(word(44, tail), SavedError::Options(_)));
    }
    for position in [0, 2, 65, u32::MAX] {
        assert!(matches!(word(48, position), SavedError::Position { .. }));
    }
    for fed in [0, 60, 95, u64::MAX] {
        assert!(matches!(long(56, fed), SavedError::Position { .. }));
    }
    let (len, most) = (u32::MAX, 1 << 20);
    assert_eq!(word(52, len), SavedError::MetadataTooLong { len });
    assert!(matches!(word(52, most), SavedError::PartLengths { .. }));
    let error = SavedError::TextTooShort { fed: 94, tokens: 93 };
    assert_eq!(long(64, 93), error);
    for tokens in [94, 96, 1 << 61, 1 << 62, u64::MAX] {
        let error = long(64, tokens);
        assert!(matches!(error, SavedError::PartLengths { .. }), "{error}");
    }
    let error = SavedError::NewTokens { new_tokens: 96, tokens: 95 };
    assert_eq!(long(72, 96), error);
    for at in [88, 100, 123] {
        assert_eq!(saved.with(|b| put(b, at, &[1])), SavedError::ReservedNotZero);
    }
    let (id, vocab_size) = (1 << 20, saved.file.model().config().vocab_size);
    let error = SavedError::TokenId { id, vocab_size };
    assert_eq!(word(HEADER_LEN + 4 * 94, id), error);
    let metadata = HEADER_LEN + 4 * 95;
    assert_eq!(&saved.bytes[metadata..metadata + 8], b"{\"a\": 1}");
    assert_eq!(saved.with(|b| put(b, metadata, &[0xff])), SavedError::MetadataNotUtf8);
}

#[test]
fn rejects_numbers_that_no_token_leaves_in_the_cache() {
    let cache = HEADER_LEN + 4 * 95 + 8;
    let nan = f32::NAN.to_le_bytes();
    for (kv, at, number) in [
        (KvType::F32, 4, &nan[..]),
        (KvType::F32, 8, &f32::INFINITY.to_le_bytes()),
        (KvType::F16, 2, &[0, 0x7c]),
        (KvType::F16, 6, &[1, 0xfe]),
        (KvType::Q8, 5, &[0x80]),
    ] {
        let saved = Saved::new(kv);
        let error = SavedError::CacheNumber { layer: 0, slot: 0 };
        assert_eq!(saved.with(|b| put(b, cache + at, number)), error);
        // The last number of the shadow, in q8 a scale.
        let last = saved.bytes.len() - 4 - number.len();
        let number = if kv == KvType::Q8 { &nan[..] } else { number };
        let last = last.min(saved.bytes.len() - 4 - number.len());
        let error = saved.with(|b| put(b, last, number));
        assert!(matches!(error, SavedError::CacheNumber { layer: 1, .. }), "{error}");
    }
}

#[test]
fn rejects_sessions_that_are_made_for_something_else() {
    let saved = Saved::new(KvType::Q8);
    let other = tiny(2, Encoding::Q4);
    let foreign = SavedSession::new(&saved.bytes, other.model().file());
    assert_eq!(foreign.unwrap_err(), SavedError::OtherModel);
    let model = saved.file.model();
    let proven = SavedSession::new(&saved.bytes, model.file()).unwrap();
    let options = saved.options;
    for (option, options) in [
        ("kv", SessionOptions { kv: KvType::F16, ..options }),
        ("window", SessionOptions { window: 63, ..options }),
        ("keep", SessionOptions { keep: 3, ..options }),
        ("overflow", SessionOptions { overflow: Overflow::Stop, tail: None, ..options }),
        ("overflow", SessionOptions { overflow: Overflow::Refill, ..options }),
        ("tail", SessionOptions { tail: Some(20), ..options }),
    ] {
        let error = with_session(model, &options, |session| session.restore(&proven));
        assert_eq!(error, Err(SavedError::Differs { option }));
    }
}

/// Whatever is in the file: an error, or a session that runs.
#[test]
fn any_bytes_are_refused_or_run() {
    let saved = Saved::new(KvType::Q8);
    let mut state = 5u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut ran = 0;
    for _ in 0..400 {
        let mut bytes = saved.bytes.clone();
        for _ in 0..1 + random(3) {
            let at = if random(2) == 0 { random(HEADER_LEN) } else { random(bytes.len()) };
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
        }
        if random(4) == 0 {
            bytes.truncate(random(bytes.len()));
            let len = bytes.len() as u64;
            if bytes.len() > 16 {
                put(&mut bytes, 8, &len.to_le_bytes());
            }
        }
        mend(&mut bytes);
        let model = saved.file.model();
        let Ok(proven) = SavedSession::new(&bytes, model.file()) else { continue };
        let options = proven.session_options(&SessionOptions::new(model.config()));
        with_session(model, &options, |session| {
            if session.restore(&proven).is_ok() {
                ran += usize::from(session.feed(&[1, 2], &Serial).is_ok());
            }
        });
    }
    assert!(ran > 50, "{ran}");
}
