//! What each matrix in q4 alone would cost.

use pocketgpt_runtime::format::Encoding;

use super::dense::Linear;
use super::divergence::divergence;
use super::forward::{Block, Network, Norm};
use super::moments::Moments;
use super::{Step, fit};

/// Copies of the first windows of the stream, in each of which one matrix is q4.
pub(crate) struct Variants {
    lengths: Vec<usize>,
    reference: Vec<f32>,
    /// That of `wte` first, then four per block in the order of the file.
    streams: Vec<Vec<f32>>,
}

impl Variants {
    pub(crate) fn new(reference: Vec<f32>, stored: Vec<f32>, lengths: Vec<usize>) -> Self {
        Self { lengths, reference, streams: vec![stored] }
    }

    /// Leads all copies through a block, and begins those of its own matrices.
    pub(crate) fn block<E>(
        &mut self,
        network: &Network,
        layer: usize,
        block: &Block,
        moments: &[Moments; 4],
        step: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        for stream in &mut self.streams {
            network.block(layer, block, stream, &self.lengths);
            step()?;
        }
        let mut changed = block.clone();
        for (place, moments) in moments.iter().enumerate() {
            let rounded = rounded(matrix(&mut changed, place), moments, step)?;
            let own = std::mem::replace(matrix(&mut changed, place), rounded);
            let mut stream = self.reference.clone();
            network.block(layer, &changed, &mut stream, &self.lengths);
            self.streams.push(stream);
            *matrix(&mut changed, place) = own;
            step()?;
        }
        network.block(layer, block, &mut self.reference, &self.lengths);
        Ok(())
    }

    /// Mean divergences, in the order of the streams; `stored` is the head in q4.
    pub(crate) fn divergences<E>(
        self,
        network: &Network,
        ln_f: &Norm,
        head: &Linear,
        stored: &Linear,
        step: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<f64>, E> {
        let n = network.width();
        let reference = network.norm(ln_f, &self.reference);
        let mut found = Vec::new();
        for (i, stream) in self.streams.iter().enumerate() {
            let hidden = network.norm(ln_f, stream);
            let own = if i == 0 { stored } else { head };
            let all = 0..hidden.len() / n;
            found.push(divergence(&network.kernels, (&reference, head), (&hidden, own), all).kl);
            step()?;
        }
        Ok(found)
    }
}

fn matrix(block: &mut Block, place: usize) -> &mut Linear {
    match place {
        0 => &mut block.c_attn,
        1 => &mut block.attn_c_proj,
        2 => &mut block.c_fc,
        _ => &mut block.mlp_c_proj,
    }
}

/// The matrix in q4.
pub(crate) fn rounded<E>(
    linear: &Linear,
    moments: &Moments,
    step: Step<'_, E>,
) -> Result<Linear, E> {
    Ok(fit(linear, Encoding::Q4, moments, step)?.linear)
}
