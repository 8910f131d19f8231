//! The runtime as a WebAssembly module, without glue code: numbers go in and out, everything else
//! lies in the module's memory. `pocketgpt.mjs` is the other side.
//!
//! A module has one model: its file is written where [`file_memory`] says, then [`open`] proves it.
//! Texts and token ids go in through [`input`]; text comes out in pieces, through the imported
//! function `text`. What is wrong returns a negative number then, and leaves a message; where
//! memory runs out the module traps, and must be made anew.

use std::cell::RefCell;
use std::error::Error;
use std::ops::ControlFlow;

use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::tokenizer::Utf8Stream;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};

#[link(wasm_import_module = "pocketgpt")]
unsafe extern "C" {
    /// Takes a piece of UTF-8 text; 0 ends the text with it.
    safe fn text(start: *const u8, len: usize) -> i32;
}

/// All there is: a module has one thread.
#[derive(Default)]
struct State {
    /// The file, until it is opened: lines of 64 bytes, because it must begin at such an address.
    file: Vec<Line>,
    file_len: usize,
    model: Option<Gpt2<'static>>,
    input: Vec<Line>,
    /// `[ids][vocab_size]`
    logits: Vec<f32>,
    message: String,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

const MORE_THAN_GIVEN: &str = "more than was put in with input";

impl State {
    fn model(&self) -> Result<Gpt2<'static>, Box<dyn Error>> {
        Ok(self.model.ok_or("no model is open")?)
    }
}

fn lines(bytes: usize) -> Vec<Line> {
    vec![Line::ZERO; Line::count_for(bytes)]
}

/// Runs what can fail: its number, or -1 and a message.
fn run(f: impl FnOnce(&mut State) -> Result<usize, Box<dyn Error>>) -> i32 {
    STATE.with_borrow_mut(|state| match f(state) {
        Ok(number) => number as i32,
        Err(error) => {
            state.message = error.to_string();
            -1
        }
    })
}

/// Memory for the `len` bytes of a `.pgpt` file, to be written before [`open`].
#[unsafe(no_mangle)]
pub extern "C" fn file_memory(len: usize) -> *mut Line {
    STATE.with_borrow_mut(|state| {
        (state.file, state.file_len) = (lines(len), len);
        state.file.as_mut_ptr()
    })
}

/// Proves the file, and returns the size of the vocabulary.
#[unsafe(no_mangle)]
pub extern "C" fn open() -> i32 {
    run(|state| {
        // For as long as the module lives: the model borrows it.
        let file: &'static [u8] = bytemuck::cast_slice(std::mem::take(&mut state.file).leak());
        let file = file.get(..state.file_len).ok_or("no file was written")?;
        let model = Gpt2::new(WeightFile::new(file)?, Kernels::best());
        state.model = Some(model);
        Ok(model.config().vocab_size as usize)
    })
}

/// Positions of the model: the longest text in tokens.
#[unsafe(no_mangle)]
pub extern "C" fn positions() -> i32 {
    run(|state| Ok(state.model()?.config().n_ctx as usize))
}

/// Memory for `len` bytes of what the next call is about.
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut Line {
    STATE.with_borrow_mut(|state| {
        state.input = lines(len);
        state.input.as_mut_ptr()
    })
}

/// Continues the prompt of `len` bytes in [`input`], as `pocketgpt generate --kv q8` does with its
/// other options left as they are: each piece of text goes to `text`. Returns the number of tokens.
#[unsafe(no_mangle)]
pub extern "C" fn generate(len: usize, max_new_tokens: usize, seed: u64) -> i32 {
    run(|state| {
        let model = state.model()?;
        let config = *model.config();
        let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
        let prompt = bytemuck::cast_slice(&state.input).get(..len).ok_or(MORE_THAN_GIVEN)?;
        let prompt = std::str::from_utf8(prompt)?;
        let prompt = tokenizer.encode_to_vec(prompt);

        let sampling =
            SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
        let options = DecodingOptions {
            strategy: Strategy::Sample(sampling),
            max_new_tokens,
            seed,
            ..DecodingOptions::new(&config)
        };
        let base = SessionOptions { kv: KvType::Q8, ..SessionOptions::new(&config) };
        let session_options = options.session_options(&base, prompt.len());
        let mut memory = vec![Line::ZERO; Plan::new(&config, &session_options)?.lines()];
        let mut session = Session::new(model, &session_options, &mut memory)?;
        let mut memory = vec![Line::ZERO; Generator::lines(&config, &options, prompt.len())?];
        let mut generator = Generator::new(&config, &options, prompt.len(), &mut memory)?;

        let mut stream = Utf8Stream::new();
        let mut count = 0;
        generator.run(&mut session, &Serial, &prompt, &mut |token: u32| {
            count += 1;
            let mut wanted = true;
            let bytes = tokenizer.token_bytes(token).unwrap_or_default();
            stream.push(bytes, |piece| wanted &= text(piece.as_ptr(), piece.len()) != 0);
            if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        stream.finish(|piece| _ = text(piece.as_ptr(), piece.len()));
        Ok(count)
    })
}

/// Reads the token ids in [`input`], the first `together` of them at once and then `one_by_one`,
/// with the cache in f32 (0), f16 (1) or q8 (2), and returns the number of [`logits`].
#[unsafe(no_mangle)]
pub extern "C" fn feed(together: usize, one_by_one: usize, kv: usize) -> i32 {
    run(|state| {
        let model = state.model()?;
        let kv = *[KvType::F32, KvType::F16, KvType::Q8].get(kv).ok_or("no such cache type")?;
        let ids: &[u32] = bytemuck::cast_slice(&state.input);
        let count = together.checked_add(one_by_one);
        let ids = count.and_then(|count| ids.get(..count)).ok_or(MORE_THAN_GIVEN)?;
        let (first, rest) = ids.split_at(together);

        let options = SessionOptions { kv, logit_rows: 5, ..SessionOptions::new(model.config()) };
        let mut memory = vec![Line::ZERO; Plan::new(model.config(), &options)?.lines()];
        let mut session = Session::new(model, &options, &mut memory)?;
        state.logits.clear();
        if !first.is_empty() {
            session.feed_all(first, &Serial, &mut |_, row| state.logits.extend(row))?;
        }
        for &id in rest {
            state.logits.extend(session.feed(&[id], &Serial)?);
        }
        Ok(state.logits.len())
    })
}

/// The logits of the last [`feed`], `[ids][vocab_size]`.
#[unsafe(no_mangle)]
pub extern "C" fn logits() -> *const f32 {
    STATE.with_borrow(|state| state.logits.as_ptr())
}

/// What went wrong, as UTF-8.
#[unsafe(no_mangle)]
pub extern "C" fn message() -> *const u8 {
    STATE.with_borrow(|state| state.message.as_ptr())
}

/// Bytes of [`message`].
#[unsafe(no_mangle)]
pub extern "C" fn message_len() -> usize {
    STATE.with_borrow(|state| state.message.len())
}
