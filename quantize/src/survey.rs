//! What reading a checkpoint with a text tells, before anything is made.

use pocketgpt_runtime::format::{Encoding, Role};

use crate::allocate::{Encodings, LADDER, Losses, allocate, unsure};
use crate::calibrate::text::Windows;
use crate::calibrate::{Calibration, Linear, Moments, Norm, Trials, fit, fit_each, number};
use crate::calibrated::{Calibrated, Reader, cancelled, fit_or_keep};
use crate::error::ConvertError;
use crate::progress::Progress;

/// Tried for all matrices; the first of [`LADDER`] only where it may be chosen.
const TRIED: Encoding = LADDER[1];
const SMALLEST: Encoding = LADDER[0];
/// Times that the smallest encoding is tried for what looks as if it were chosen, before all others are
/// tried as well.
const ROUNDS: usize = 3;

/// A matrix of a block in the smallest encoding: its records and bias.
struct Small {
    records: Vec<u8>,
    bias: Vec<f32>,
}

/// What reading the checkpoint once has told.
pub(crate) struct Survey {
    calibration: Calibration,
    wte: Linear,
    wpe: Vec<f32>,
    ln_f: Norm,
    head_moments: Moments,
    /// Of all matrices, if a size is to be met: what they cost, and those of the blocks in the
    /// smallest encoding, as long as they were not tried.
    losses: Vec<Losses>,
    small: Vec<Option<Small>>,
}

impl Survey {
    /// Reads the checkpoint once; where a size is to be met, each matrix is tried in [`TRIED`].
    pub(crate) fn new(
        reader: &mut Reader<'_>,
        text: Windows,
        has_target: bool,
        progress: &mut dyn Progress,
    ) -> Result<Self, ConvertError> {
        let config = reader.config;
        let wte = reader.linear(Role::Wte, None, 0)?;
        let wpe = reader.numbers(Role::Wpe, 0)?;
        let ln_f = reader.norm(Role::LnFWeight, Role::LnFBias, 0)?;
        let mut calibration = Calibration::new(config, text);
        calibration.embed_reference(&wte, &wpe);
        let mut trials = match has_target {
            false => None,
            true => Some(begin(&calibration, &wte, &wpe, Some(TRIED), progress)?),
        };
        let mut small = Vec::new();
        for layer in 0..config.n_layer as usize {
            progress.tensor(&format!("reading h.{layer}"));
            let mut block = reader.block(layer)?;
            let step = &mut || cancelled(progress);
            let moments = calibration.survey(layer, &block, has_target, step)?;
            if let (Some(trials), Some(moments)) = (&mut trials, &moments) {
                let mut tried = Vec::new();
                for (place, moments) in moments.iter().enumerate() {
                    let both = fit_each(block.matrix(place), &[TRIED, SMALLEST], moments, step)?;
                    let [second, smallest] = both.try_into().expect("two encodings, two results");
                    tried.push(Some(second.linear));
                    let (records, bias) = (smallest.records, smallest.linear.bias);
                    small.push(Some(Small { records, bias }));
                }
                let stored = &mut |place: usize| tried[place].take();
                trials.block(&calibration.network, layer, &mut block, stored, step)?;
            }
            progress.advance(reader.block_bytes(layer));
        }
        progress.tensor("lm_head");
        let head_moments = calibration.head_moments(&ln_f, false);
        calibration.drop_reference();
        let losses = Vec::new();
        let mut survey = Self { calibration, wte, wpe, ln_f, head_moments, losses, small };
        if let Some(trials) = trials {
            let found = survey.end(reader, trials, Some(TRIED), progress)?;
            let losses = found.into_iter().map(|(_, second)| Losses { smallest: None, second });
            survey.losses = losses.collect();
        }
        Ok(survey)
    }

    /// The best encodings for this much room, see [`allocate`].
    pub(crate) fn choose(
        &mut self,
        reader: &mut Reader<'_>,
        room: u64,
        progress: &mut dyn Progress,
    ) -> Result<Encodings, ConvertError> {
        for round in 0.. {
            let encodings = allocate(&reader.config, &self.losses, room);
            let unsure = unsure(&self.losses, &encodings);
            if unsure.is_empty() {
                return Ok(encodings);
            }
            let wanted: Vec<bool> = (self.losses.iter().enumerate())
                .map(|(i, losses)| match round < ROUNDS {
                    true => unsure.contains(&i),
                    false => losses.smallest.is_none(),
                })
                .collect();
            self.try_smallest(reader, &wanted, progress)?;
        }
        unreachable!("every round measures what was not measured before")
    }

    /// Measures what some matrices cost in the smallest encoding.
    fn try_smallest(
        &mut self,
        reader: &mut Reader<'_>,
        wanted: &[bool],
        progress: &mut dyn Progress,
    ) -> Result<(), ConvertError> {
        let head = wanted[0].then_some(SMALLEST);
        let mut trials = begin(&self.calibration, &self.wte, &self.wpe, head, progress)?;
        for layer in 0..reader.config.n_layer as usize {
            progress.tensor(&format!("trying h.{layer}"));
            let mut block = reader.block(layer)?;
            let shapes = [0, 1, 2, 3].map(|place| {
                let matrix = block.matrix(place);
                (matrix.rows, matrix.cols)
            });
            let stored = &mut |place: usize| {
                let number = number(layer, place);
                let small = self.small[number - 1].take_if(|_| wanted[number])?;
                Some(Linear::from_records(SMALLEST, &small.records, shapes[place], small.bias))
            };
            let step = &mut || cancelled(progress);
            trials.block(&self.calibration.network, layer, &mut block, stored, step)?;
        }
        for (number, loss) in self.end(reader, trials, head, progress)? {
            self.losses[number].smallest = Some(loss);
        }
        Ok(())
    }

    /// What trials have shown; `encoding` is that of the head that was tried.
    fn end(
        &self,
        reader: &mut Reader<'_>,
        trials: Trials,
        encoding: Option<Encoding>,
        progress: &dyn Progress,
    ) -> Result<Vec<(usize, f64)>, ConvertError> {
        let untied = match reader.config.tied_head {
            true => None,
            false => Some(reader.linear(Role::LmHead, None, 0)?),
        };
        let head = untied.as_ref().unwrap_or(&self.wte);
        let step = &mut || cancelled(progress);
        let stored = match encoding {
            None => None,
            Some(encoding) => Some(fit(head, encoding, &self.head_moments, step)?.linear),
        };
        trials.divergences(&self.calibration.network, &self.ln_f, head, stored.as_ref(), step)
    }

    /// Fits `wte`, and begins.
    pub(crate) fn begin(
        self,
        encodings: Encodings,
        wpe_encoding: Encoding,
        progress: &dyn Progress,
    ) -> Result<Calibrated, ConvertError> {
        let Self { mut calibration, wte, wpe, ln_f, head_moments, .. } = self;
        let encoding = encodings.of(Role::Wte, 0);
        let step = &mut || cancelled(progress);
        let fitted = fit_or_keep(&wte, encoding, &head_moments, step)?;
        let stored_wpe: Vec<f32> = match wpe_encoding {
            Encoding::F16 => wpe.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect(),
            _ => wpe.clone(),
        };
        calibration.embed(&wte, &fitted.linear, &wpe, &stored_wpe);
        Ok(Calibrated::new(calibration, encodings, wte, ln_f, fitted))
    }
}

/// Begins trials, of `wte` too if there is an encoding for it.
fn begin(
    calibration: &Calibration,
    wte: &Linear,
    wpe: &[f32],
    encoding: Option<Encoding>,
    progress: &dyn Progress,
) -> Result<Trials, ConvertError> {
    let step = &mut || cancelled(progress);
    let stored = match encoding {
        None => None,
        // What the head will get is not known yet: each weight is rounded for itself.
        Some(encoding) => Some(fit(wte, encoding, &Moments::new(wte.cols, 0), step)?.linear),
    };
    Ok(calibration.trials(wte, stored.as_ref(), wpe))
}
