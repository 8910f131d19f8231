//! What each matrix alone would cost in fewer bits.

use pocketgpt_runtime::format::Encoding;

use super::dense::Linear;
use super::divergence::divergence;
use super::forward::{Block, Network, Norm};
use super::moments::Moments;
use super::{Step, fit};

/// Copies of the first windows of the stream, in each of which one matrix has one of the encodings
/// that are tried.
pub(crate) struct Variants {
    tried: &'static [Encoding],
    lengths: Vec<usize>,
    reference: Vec<f32>,
    /// For each encoding that of `wte` first, then those of four matrices per block in the order of
    /// the file.
    streams: Vec<Vec<f32>>,
}

impl Variants {
    /// `stored` begins with `wte` in each of the encodings that are tried.
    pub(crate) fn new(
        tried: &'static [Encoding],
        reference: Vec<f32>,
        stored: Vec<Vec<f32>>,
        lengths: Vec<usize>,
    ) -> Self {
        Self { tried, lengths, reference, streams: stored }
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
            let own = matrix(&mut changed, place).clone();
            for encoding in self.tried {
                *matrix(&mut changed, place) = rounded(&own, *encoding, moments, step)?;
                let mut stream = self.reference.clone();
                network.block(layer, &changed, &mut stream, &self.lengths);
                self.streams.push(stream);
                step()?;
            }
            *matrix(&mut changed, place) = own;
        }
        network.block(layer, block, &mut self.reference, &self.lengths);
        Ok(())
    }

    /// Mean divergences, in the order of the streams; `stored` is the head in each encoding.
    pub(crate) fn divergences<E>(
        self,
        network: &Network,
        ln_f: &Norm,
        head: &Linear,
        stored: &[Linear],
        step: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<f64>, E> {
        let n = network.width();
        let reference = network.norm(ln_f, &self.reference);
        let mut found = Vec::new();
        for (i, stream) in self.streams.iter().enumerate() {
            let hidden = network.norm(ln_f, stream);
            let own = stored.get(i).unwrap_or(head);
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

/// The matrix in an encoding.
pub(crate) fn rounded<E>(
    linear: &Linear,
    encoding: Encoding,
    moments: &Moments,
    step: Step<'_, E>,
) -> Result<Linear, E> {
    Ok(fit(linear, encoding, moments, step)?.linear)
}
