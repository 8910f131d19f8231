//! Perplexity, by the protocol of the reference in `tests/data/golden/perplexity.json`.
//!
//! A text is split at `<|endoftext|>`; documents lose the line breaks at both ends, empty ones are
//! left out, and each is preceded by the token that ends texts. All of them together are one stream,
//! which is cut into windows of the model's whole context (the last one shorter). Every token of a
//! window but the first is scored, given those before it.
//!
//! Past the context ([`score_past`]) the stream is one text instead, and what is scored are the tokens
//! that a session which stops could not predict.

use std::ops::ControlFlow;

use anyhow::{Result, bail};
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::tokenizer::TokenizerView;

const SEPARATOR: &str = "<|endoftext|>";

/// A text as tokens.
#[derive(Debug)]
pub struct TokenStream {
    pub tokens: Vec<u32>,
    /// Bytes of the documents.
    pub text_bytes: usize,
}

impl TokenStream {
    pub fn new(text: &str, tokenizer: &TokenizerView<'_>, eos_token_id: u32) -> Self {
        let mut stream = Self { tokens: Vec::new(), text_bytes: 0 };
        for document in text.split(SEPARATOR) {
            let document = document.trim_matches('\n');
            if !document.is_empty() {
                stream.tokens.push(eos_token_id);
                stream.tokens.extend(tokenizer.encode_to_vec(document));
                stream.text_bytes += document.len();
            }
        }
        stream
    }
}

/// How well tokens were predicted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// Sum of the negative logarithms of their probabilities.
    pub nats: f64,
    pub scored_tokens: usize,
}

impl Score {
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.scored_tokens as f64).exp()
    }
}

/// Scores a stream. `progress` gets the number of tokens read since it was last called, and may
/// stop the work: there is no score then.
pub fn score(
    session: &mut Session<'_, '_>,
    par: &dyn Parallel,
    tokens: &[u32],
    batch: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Score>> {
    let n_ctx = session.model().config().n_ctx as usize;
    let mut score = Score::default();
    for window in tokens.chunks(n_ctx) {
        session.truncate(0);
        // The last token is only predicted. In parts, which changes no number, so that progress
        // is seen and an end is possible.
        let (mut targets, given) = (&window[1..], &window[..window.len() - 1]);
        for part in given.chunks(batch) {
            session.feed_all(part, par, &mut |i, logits| {
                score.nats += nats(logits, targets[i]);
            })?;
            targets = &targets[part.len()..];
            if progress(part.len()).is_break() {
                return Ok(None);
            }
        }
        score.scored_tokens += given.len();
        if !score.nats.is_finite() {
            bail!("a logit is not a finite number");
        }
    }
    if score.scored_tokens == 0 {
        bail!("the model's context of one token leaves nothing to score");
    }
    Ok(Some(score))
}

/// The first token that is scored past the context: the last position still predicts the one before.
pub fn first_past(n_ctx: usize) -> usize {
    n_ctx + 1
}

/// Negative logarithms of the probabilities of the tokens from `first` on, in a session that goes on
/// past its context and has read nothing yet. `progress` is as in [`score`].
pub fn score_past(
    session: &mut Session<'_, '_>,
    par: &dyn Parallel,
    tokens: &[u32],
    first: usize,
    batch: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<f64>>> {
    let mut scores = Vec::with_capacity(tokens.len() - first);
    let mut done = 0;
    for part in tokens[..tokens.len() - 1].chunks(batch) {
        session.feed_all(part, par, &mut |i, logits| {
            let target = done + i + 1;
            if target >= first {
                scores.push(nats(logits, tokens[target]));
            }
        })?;
        done += part.len();
        if progress(part.len()).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(scores))
}

/// As [`score_past`], but every token is predicted from the `length` tokens before it, which are read
/// anew for each: what a context that moves on with every token would give, at the price of a prompt
/// per token.
pub fn score_anew(
    session: &mut Session<'_, '_>,
    par: &dyn Parallel,
    tokens: &[u32],
    first: usize,
    length: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<f64>>> {
    let mut scores = Vec::with_capacity(tokens.len() - first);
    for target in first..tokens.len() {
        session.truncate(0);
        let logits = session.feed(&tokens[target - length..target], par)?;
        scores.push(nats(logits, tokens[target]));
        if progress(length).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(scores))
}

/// Negative logarithm of the probability that the logits give to a token.
pub fn nats(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    sum.ln() - f64::from(logits[token as usize] - max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nats_are_those_of_a_softmax() {
        let logits = [0.0, 0.0, 0.0, 0.0];
        assert!((nats(&logits, 2) - 4f64.ln()).abs() < 1e-12);
        // Far beyond what exp can hold.
        assert!((nats(&[1000.0, 1001.0], 1) - (1.0 + (-1f64).exp()).ln()).abs() < 1e-9);
    }
}
