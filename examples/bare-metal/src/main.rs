//! A text on the serial port, without operating system and without heap.
//!
//! The model's file is linked into the image and used where it lies; all other memory is static.
//! What a board is stands in `board/`: a UART, a pin and a timer, through embedded-io and
//! embedded-hal. Everything else is this file.
#![no_std]
#![no_main]

mod board;

use embedded_io::Write;
use pocketgpt_runtime::KvType;
use pocketgpt_runtime::decoding::{DecodingOptions, SamplingOptions, Strategy};
use pocketgpt_runtime::embedded::{Activity, Pause, TextWriter};
use pocketgpt_runtime::error::Error;
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::generate::Generator;
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::SessionOptions;
use static_cell::ConstStaticCell;

use crate::board::Board;

const PROMPT: &str = "Once upon a time";
const NEW_TOKENS: usize = 40;
/// Positions that attention sees. Shorter takes less memory.
const WINDOW: usize = 64;
/// Tokens of the prompt that are read together.
const BATCH: usize = 4;
/// Rest between two tokens.
const PAUSE_MS: u32 = 1;

/// The file, at a multiple of 64 as the runtime wants it. The linker script puts the section where
/// there is room: in flash, or in memory beside the chip that can be read like flash.
#[unsafe(link_section = ".model")]
static MODEL: Aligned<[u8; FILE.len()]> = Aligned(*FILE);
const FILE: &[u8; include_bytes!(env!("POCKETGPT_MODEL")).len()] =
    include_bytes!(env!("POCKETGPT_MODEL"));
#[repr(C, align(64))]
struct Aligned<T>(T);

/// All memory there is: `pocketgpt plan` tells how much a model takes with the options below, and
/// where it is too small, so does the error on the serial port.
static SESSION: ConstStaticCell<[Line; Line::count_for(272 * 1024)]> =
    ConstStaticCell::new([Line::ZERO; _]);
static GENERATOR: ConstStaticCell<[Line; Line::count_for(51 * 1024)]> =
    ConstStaticCell::new([Line::ZERO; _]);

/// Called by the board's start-up code.
fn main(board: Board) -> Result<(), Error> {
    let Board { mut uart, pin, timer } = board;

    // The file is proven once; then nothing in it can be wrong. No weight is copied.
    let model = Gpt2::new(WeightFile::new(&MODEL.0)?, Kernels::best());
    let config = *model.config();
    let Some(tokenizer) = model.file().tokenizer()? else { panic!("the model has no tokenizer") };

    let (mut scratch, mut tokens) = ([0; 512], [0; 32]);
    let count = tokenizer.encode(PROMPT, &mut scratch, &mut tokens)?;
    let prompt = &tokens[..count];

    // What is wanted, and the memory that it takes.
    let sampling = SamplingOptions { temperature: 0.8, top_k: 40, ..SamplingOptions::default() };
    let options = DecodingOptions {
        strategy: Strategy::Sample(sampling),
        max_new_tokens: NEW_TOKENS,
        seed: 1,
        ..DecodingOptions::new(&config)
    };
    let base = SessionOptions {
        kv: KvType::Q8,
        window: WINDOW.min(config.n_ctx as usize),
        batch: BATCH,
        ..SessionOptions::new(&config)
    };
    let session_options = options.session_options(&base, count);
    let mut session = Session::new(model, &session_options, SESSION.take())?;
    let mut generator = Generator::new(&config, &options, count, GENERATOR.take())?;

    // The pin is high while the model works; each token goes to the UART when it is chosen.
    let Ok(()) = uart.write_all(PROMPT.as_bytes());
    let text = TextWriter::new(uart, tokenizer);
    let mut observer = Activity::new(pin, Pause::new(timer, PAUSE_MS, text));
    generator.run(&mut session, &Serial, prompt, &mut observer)?;

    let (_pin, pause) = observer.finish();
    let (_timer, text) = pause.finish();
    let Ok(mut uart) = text.finish();
    let Ok(()) = uart.write_all(b"\n");
    Ok(())
}
