//! A board's UART, pin and timer as observers of a text.

use std::cell::RefCell;
use std::convert::Infallible;

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::{ErrorType as PinErrorType, OutputPin};
use embedded_io::{ErrorKind, ErrorType, Write};
use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::decoding::{DecodingOptions, StopReason};
use pocketgpt_runtime::embedded::{Activity, Pause, TextWriter};
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, bundled, generate};

/// What happened on the board, in order.
#[derive(Debug, PartialEq)]
enum Event {
    High,
    Low,
    Wait(u32),
    Text(String),
}

/// A board that writes down what happens, and takes this many writes.
struct Board {
    events: RefCell<Vec<Event>>,
    writes: usize,
}

impl Board {
    fn note(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn text(&self) -> String {
        let events = self.events.borrow();
        let text = |event: &Event| match event {
            Event::Text(text) => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }

    fn count(&self, event: &Event) -> usize {
        self.events.borrow().iter().filter(|&each| each == event).count()
    }
}

impl ErrorType for &Board {
    type Error = ErrorKind;
}

impl Write for &Board {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        let texts = self.events.borrow().iter().filter(|e| matches!(e, Event::Text(_))).count();
        if texts == self.writes {
            return Err(ErrorKind::TimedOut);
        }
        self.note(Event::Text(String::from_utf8(bytes.to_vec()).expect("whole characters")));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

impl PinErrorType for &Board {
    type Error = Infallible;
}

impl OutputPin for &Board {
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.note(Event::High);
        Ok(())
    }

    fn set_low(&mut self) -> Result<(), Infallible> {
        self.note(Event::Low);
        Ok(())
    }
}

impl DelayNs for &Board {
    fn delay_ns(&mut self, ns: u32) {
        self.note(Event::Wait(ns));
    }
}

const PROMPT: [u32; 4] = [3478, 813, 258, 542];
const NEW_TOKENS: usize = 12;

fn run(writes: usize) -> (Board, usize, StopReason, Result<(), ErrorKind>, String) {
    let file = Converted::new(&bundled(), Encoding::Q8);
    let model = file.model();
    let config = *model.config();
    let tokenizer = model.file().tokenizer().unwrap().unwrap();
    let options = DecodingOptions {
        max_new_tokens: NEW_TOKENS,
        min_new_tokens: NEW_TOKENS,
        ..DecodingOptions::new(&config)
    };
    let board = Board { events: RefCell::default(), writes };
    let text = TextWriter::new(&board, tokenizer);
    let mut observer = Activity::new(&board, Pause::new(&board, 3, text));
    let base = SessionOptions::new(&config);
    let texts = generate(model, &base, &options, &PROMPT, &Serial, &mut observer).unwrap();
    let (_, pause) = observer.finish();
    let written = pause.finish().1.finish().map(|_| ());
    let expected = tokenizer.decode_to_string(&texts[0].tokens);
    let (count, reason) = (texts[0].tokens.len(), texts[0].stop_reason);
    (board, count, reason, written, expected)
}

#[test]
fn a_board_shows_each_token_once() {
    let (board, count, reason, written, expected) = run(usize::MAX);
    assert_eq!((count, reason), (NEW_TOKENS, StopReason::MaxNewTokens));
    written.unwrap();
    assert_eq!(board.text(), expected);
    // High for the prompt and each token but the last, which is not read.
    assert_eq!(board.count(&Event::High), NEW_TOKENS);
    assert_eq!(board.count(&Event::Wait(3_000_000)), NEW_TOKENS - 1);
    let events = board.events.borrow();
    assert_eq!(events[..2], [Event::High, Event::Low]);
    assert_eq!(events.last(), Some(&Event::Low));
}

#[test]
fn a_writer_that_fails_ends_the_text() {
    let (board, count, reason, written, expected) = run(3);
    assert_eq!((count, reason), (4, StopReason::Interrupted));
    assert_eq!(written, Err(ErrorKind::TimedOut));
    assert!(expected.starts_with(&board.text()) && !board.text().is_empty());
}
