//! Takes the tokens as they come, and prints or keeps their text.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::Result;
use pocketgpt_runtime::decoding::{Continuation, Contrast, Distribution, Stage};
use pocketgpt_runtime::generate::Observer;
use pocketgpt_runtime::tokenizer::TokenizerView;

use super::explain::Explanation;
use crate::stream::TextStream;
use crate::{interrupt, output};

/// Looks on while texts are written.
pub struct Writer<'a> {
    streams: Vec<TextStream<'a>>,
    /// The text of each sequence, where it is not printed as it comes.
    kept: Vec<String>,
    /// Whether the text is printed as it comes.
    print: bool,
    at_line_start: bool,
    explanation: Option<Explanation<'a>>,
    /// Whether the explanation is printed as it comes.
    print_explanation: bool,
    /// Passes through the model behind the prompt.
    pub steps: usize,
    /// When the first token's logits were there.
    pub prompt_read: Option<Instant>,
    /// What printing failed with; ends the work.
    error: Option<anyhow::Error>,
}

impl<'a> Writer<'a> {
    /// A writer of some sequences, each of which ends before the first of `stops`.
    pub fn new(tokenizer: TokenizerView<'a>, stops: &'a [String], sequences: usize) -> Self {
        Self {
            streams: (0..sequences).map(|_| TextStream::new(tokenizer, stops)).collect(),
            kept: vec![String::new(); sequences],
            print: false,
            at_line_start: false,
            explanation: None,
            print_explanation: false,
            steps: 0,
            prompt_read: None,
            error: None,
        }
    }

    /// All texts go on behind these tokens; returns the text of those.
    pub fn begin_behind(&mut self, tokens: &[u32]) -> String {
        let texts = self.streams.iter_mut().map(|stream| stream.begin_behind(tokens));
        texts.last().unwrap_or_default()
    }

    /// From now on the text is printed as it comes; `before` goes first.
    pub fn print_after(&mut self, before: &str) -> Result<()> {
        self.print = true;
        self.emit(0, before)
    }

    /// Every choice is explained, on standard error as it comes if `print`.
    pub fn explain(&mut self, explanation: Explanation<'a>, print: bool) {
        (self.explanation, self.print_explanation) = (Some(explanation), print);
    }

    fn emit(&mut self, sequence: usize, piece: &str) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        if !self.print {
            self.kept[sequence].push_str(piece);
            return Ok(());
        }
        self.at_line_start = piece.ends_with('\n');
        output::write_foreign(piece)
    }

    fn print_steps(&mut self, end: bool) {
        if self.print_explanation
            && let Some(explanation) = &mut self.explanation
        {
            let text = explanation.print(end);
            if !text.is_empty() {
                output::note(text.trim_end());
            }
        }
    }

    /// Takes a whole text, where none came token by token.
    pub fn take(&mut self, sequence: usize, tokens: &[u32]) {
        for &token in tokens {
            let piece = self.streams[sequence].push(token);
            self.kept[sequence].push_str(&piece);
        }
    }

    /// Ends the texts, with a line break where one is printed; returns those that were kept, and
    /// the explanation.
    pub fn finish(mut self) -> Result<(Vec<String>, Option<Explanation<'a>>)> {
        self.print_steps(true);
        if let Some(error) = self.error {
            return Err(error);
        }
        for sequence in 0..self.streams.len() {
            let rest = self.streams[sequence].finish();
            self.emit(sequence, &rest)?;
        }
        if self.print && !self.at_line_start {
            output::write("\n")?;
        }
        Ok((self.kept, self.explanation))
    }
}

impl Observer for Writer<'_> {
    fn token(&mut self, sequence: usize, token: u32) -> ControlFlow<()> {
        let piece = self.streams[sequence].push(token);
        if let Err(error) = self.emit(sequence, &piece) {
            self.error = Some(error);
        }
        if self.error.is_some() || self.streams[sequence].stopped() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn chosen(&mut self, sequence: usize, token: u32) {
        if let Some(explanation) = &mut self.explanation {
            explanation.chosen(sequence, token);
        }
    }

    fn step(&mut self) -> ControlFlow<()> {
        self.steps += 1;
        self.print_steps(false);
        if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn stage(&mut self, sequence: usize, stage: Stage, left: Distribution<'_>) {
        self.prompt_read.get_or_insert_with(Instant::now);
        if let Some(explanation) = &mut self.explanation {
            explanation.stage(sequence, stage, &left);
        }
    }

    fn continuations(&mut self, continuations: &[Continuation]) {
        if let Some(explanation) = &mut self.explanation {
            explanation.continuations(continuations);
        }
    }

    fn contrasts(&mut self, candidates: &[Contrast], _chosen: usize) {
        if let Some(explanation) = &mut self.explanation {
            explanation.contrasts(candidates);
        }
    }
}
