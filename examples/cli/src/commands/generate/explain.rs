//! `--explain`: how each token was chosen.

use std::fmt::Write;

use pocketgpt_runtime::decoding::{Candidate, Continuation, Contrast, Distribution, Stage};
use pocketgpt_runtime::tokenizer::TokenizerView;
use serde::Serialize;

/// A token with its probability at some stage.
#[derive(Debug, Serialize)]
struct Choice {
    id: u32,
    text: String,
    probability: f64,
}

/// What is left after a stage.
#[derive(Debug, Serialize)]
struct StageReport {
    stage: &'static str,
    /// Tokens that may still be chosen.
    kept: usize,
    /// The most probable of them.
    candidates: Vec<Choice>,
}

/// A beam with one more token.
#[derive(Debug, Serialize)]
struct ContinuationReport {
    beam: u32,
    id: u32,
    text: String,
    score: f32,
    ends: bool,
}

/// A candidate of contrastive search.
#[derive(Debug, Serialize)]
struct ContrastReport {
    id: u32,
    text: String,
    probability: f32,
    similarity: f32,
    score: f32,
}

/// The token that was chosen.
#[derive(Debug, Serialize)]
struct Chosen {
    id: u32,
    text: String,
}

/// One token's choice; with beam search one beam, or what is made of all of them.
#[derive(Debug, Default, Serialize)]
pub struct Step {
    step: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beam: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contrasts: Vec<ContrastReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    continuations: Vec<ContinuationReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chosen: Option<Chosen>,
}

/// Collects the steps.
#[derive(Debug)]
pub struct Explanation<'a> {
    tokenizer: TokenizerView<'a>,
    /// Candidates shown of each stage.
    top: usize,
    beams: bool,
    steps: Vec<Step>,
    /// Tokens chosen of each sequence; steps of the beams.
    written: Vec<usize>,
    /// Steps that have been printed.
    printed: usize,
}

impl<'a> Explanation<'a> {
    /// An explanation that shows the `top` most probable tokens.
    pub fn new(tokenizer: TokenizerView<'a>, top: usize, beams: bool, sequences: usize) -> Self {
        Self { tokenizer, top, beams, steps: Vec::new(), written: vec![0; sequences], printed: 0 }
    }

    fn text(&self, token: u32) -> String {
        let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What is left of a sequence or beam after a stage.
    pub fn stage(&mut self, sequence: usize, stage: Stage, left: &Distribution<'_>) {
        if stage == Stage::Logits {
            let mut step = Step::default();
            if self.beams {
                (step.step, step.beam) = (self.written[0] + 1, Some(sequence));
            } else {
                (step.step, step.sequence) = (self.written[sequence] + 1, Some(sequence));
            }
            self.steps.push(step);
        }
        let report = self.stage_report(stage, left);
        if let Some(step) = self.steps.last_mut() {
            step.stages.push(report);
        }
    }

    fn stage_report(&self, stage: Stage, left: &Distribution<'_>) -> StageReport {
        let mut kept: Vec<Candidate> = left.iter().collect();
        let max = kept.iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.value));
        let weight = |c: &Candidate| f64::from(c.value - max).exp();
        let total: f64 = kept.iter().map(weight).sum();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.token.cmp(&b.token)));
        let choice = |c: &Candidate| Choice {
            id: c.token,
            text: self.text(c.token),
            probability: weight(c) / total,
        };
        let candidates = kept.iter().take(self.top).map(choice).collect();
        StageReport { stage: stage.name(), kept: kept.len(), candidates }
    }

    /// The token that was chosen.
    pub fn chosen(&mut self, sequence: usize, token: u32) {
        let chosen = Chosen { id: token, text: self.text(token) };
        self.written[sequence] += 1;
        let step = self.steps.iter_mut().rev().find(|step| step.sequence == Some(sequence));
        if let Some(step) = step {
            step.chosen = Some(chosen);
        }
    }

    /// What may become of all beams.
    pub fn continuations(&mut self, continuations: &[Continuation]) {
        self.written[0] += 1;
        let report = |c: &Continuation| ContinuationReport {
            beam: c.beam,
            id: c.token,
            text: self.text(c.token),
            score: c.score,
            ends: c.ends != 0,
        };
        let continuations = continuations.iter().map(report).collect();
        self.steps.push(Step { step: self.written[0], continuations, ..Step::default() });
    }

    /// The candidates of contrastive search.
    pub fn contrasts(&mut self, candidates: &[Contrast]) {
        let report = |c: &Contrast| ContrastReport {
            id: c.token,
            text: self.text(c.token),
            probability: c.probability,
            similarity: c.similarity,
            score: c.score,
        };
        let contrasts = candidates.iter().map(report).collect();
        if let Some(step) = self.steps.last_mut() {
            step.contrasts = contrasts;
        }
    }

    /// The steps that have not been printed, for people; the last one may not be complete yet and
    /// waits unless it is the `end`.
    pub fn print(&mut self, end: bool) -> String {
        let complete = self.steps.len() - usize::from(!end && !self.steps.is_empty());
        let mut out = String::new();
        for step in &self.steps[self.printed.min(complete)..complete] {
            print_step(step, self.written.len() > 1, &mut out);
        }
        self.printed = complete.max(self.printed);
        out
    }

    /// All steps.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }
}

fn print_step(step: &Step, several: bool, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "step {}", step.step);
    if let Some(beam) = step.beam {
        let _ = write!(out, ", beam {beam}");
    } else if let Some(sequence) = step.sequence.filter(|_| several) {
        let _ = write!(out, ", sequence {}", sequence + 1);
    }
    out.push('\n');
    for StageReport { stage, kept, candidates } in &step.stages {
        let _ = write!(out, "  {stage:<21}{kept:>6} ");
        for choice in candidates {
            let _ = write!(out, " {:?} {:.2}%", choice.text, 100.0 * choice.probability);
        }
        out.push('\n');
    }
    for c in &step.contrasts {
        let _ = writeln!(
            out,
            "  {:?} probability {:.4}, similarity {:.4}, score {:.4}",
            c.text, c.probability, c.similarity, c.score
        );
    }
    for c in &step.continuations {
        let end = if c.ends { ", ends" } else { "" };
        let _ = writeln!(out, "  beam {} + {:?} score {:.4}{end}", c.beam, c.text, c.score);
    }
    if let Some(chosen) = &step.chosen {
        let _ = writeln!(out, "  chosen {:?}", chosen.text);
    }
}
