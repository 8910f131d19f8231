//! What a board has, as observers of a text: each does one thing and passes everything on to the
//! next, `Activity::new(pin, Pause::new(timer, ms, TextWriter::new(uart, tokenizer)))`.

#[cfg(feature = "embedded-hal")]
pub use hal::{Activity, Pause};
#[cfg(feature = "embedded-io")]
pub use io::TextWriter;

#[cfg(feature = "embedded-io")]
mod io {
    use core::ops::ControlFlow;

    use embedded_io::Write;

    use crate::generate::Observer;
    use crate::tokenizer::{TokenizerView, Utf8Stream};

    /// Writes the text of the first sequence as it comes, to a UART or whatever else takes bytes.
    /// Generation ends where writing fails.
    #[derive(Debug)]
    pub struct TextWriter<'w, W: Write> {
        writer: W,
        tokenizer: TokenizerView<'w>,
        text: Utf8Stream,
        result: Result<(), W::Error>,
    }

    impl<'w, W: Write> TextWriter<'w, W> {
        /// Writes to `writer`.
        pub fn new(writer: W, tokenizer: TokenizerView<'w>) -> Self {
            Self { writer, tokenizer, text: Utf8Stream::new(), result: Ok(()) }
        }

        /// Writes what was held back, part of a character that did not come, and gives the writer
        /// back.
        ///
        /// # Errors
        /// The first that writing had.
        pub fn finish(mut self) -> Result<W, W::Error> {
            let Self { writer, text, result, .. } = &mut self;
            text.finish(|piece| write(writer, piece, result));
            self.result?;
            self.writer.flush()?;
            Ok(self.writer)
        }
    }

    fn write<W: Write>(writer: &mut W, piece: &str, result: &mut Result<(), W::Error>) {
        if result.is_ok() {
            *result = writer.write_all(piece.as_bytes());
        }
    }

    impl<W: Write> Observer for TextWriter<'_, W> {
        fn token(&mut self, sequence: usize, token: u32) -> ControlFlow<()> {
            if sequence == 0 {
                let Self { writer, tokenizer, text, result } = self;
                let bytes = tokenizer.token_bytes(token).unwrap_or_default();
                text.push(bytes, |piece| write(writer, piece, result));
            }
            match self.result {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        }
    }
}

#[cfg(feature = "embedded-hal")]
mod hal {
    use core::ops::ControlFlow;

    use embedded_hal::delay::DelayNs;
    use embedded_hal::digital::OutputPin;

    use crate::decoding::{Continuation, Contrast, Distribution, Stage};
    use crate::generate::Observer;

    /// A pin that is high while the model works: a lamp that flickers with the tokens, and on an
    /// oscilloscope the time of each.
    ///
    /// It is set low when a token is chosen and high before the next pass; text is written in
    /// between. A pin that fails does not stop the text.
    #[derive(Debug)]
    pub struct Activity<P, O> {
        pin: P,
        next: O,
    }

    impl<P: OutputPin, O> Activity<P, O> {
        /// Sets the pin high: what comes next is the reading of the prompt.
        pub fn new(mut pin: P, next: O) -> Self {
            // A lamp is not worth an error.
            let _ = pin.set_high();
            Self { pin, next }
        }

        /// Sets the pin low and gives it and the next observer back.
        pub fn finish(mut self) -> (P, O) {
            let _ = self.pin.set_low();
            (self.pin, self.next)
        }
    }

    /// Waits after each token: for a board without a heat sink to cool, or for someone to read.
    #[derive(Debug)]
    pub struct Pause<D, O> {
        timer: D,
        milliseconds: u32,
        next: O,
    }

    impl<D: DelayNs, O> Pause<D, O> {
        /// Waits this long.
        pub fn new(timer: D, milliseconds: u32, next: O) -> Self {
            Self { timer, milliseconds, next }
        }

        /// Gives the timer and the next observer back.
        pub fn finish(self) -> (D, O) {
            (self.timer, self.next)
        }
    }

    /// Passes on what an observer does not look at itself.
    macro_rules! pass_on {
        () => {
            fn token(&mut self, sequence: usize, token: u32) -> ControlFlow<()> {
                self.next.token(sequence, token)
            }
            fn stage(&mut self, sequence: usize, stage: Stage, left: Distribution<'_>) {
                self.next.stage(sequence, stage, left);
            }
            fn continuations(&mut self, continuations: &[Continuation]) {
                self.next.continuations(continuations);
            }
            fn contrasts(&mut self, candidates: &[Contrast], chosen: usize) {
                self.next.contrasts(candidates, chosen);
            }
        };
    }

    impl<P: OutputPin, O: Observer> Observer for Activity<P, O> {
        fn chosen(&mut self, sequence: usize, token: u32) {
            let _ = self.pin.set_low();
            self.next.chosen(sequence, token);
        }
        fn step(&mut self) -> ControlFlow<()> {
            let flow = self.next.step();
            if flow.is_continue() {
                let _ = self.pin.set_high();
            }
            flow
        }
        pass_on!();
    }

    impl<D: DelayNs, O: Observer> Observer for Pause<D, O> {
        fn chosen(&mut self, sequence: usize, token: u32) {
            self.next.chosen(sequence, token);
        }
        fn step(&mut self) -> ControlFlow<()> {
            self.timer.delay_ms(self.milliseconds);
            self.next.step()
        }
        pass_on!();
    }
}
