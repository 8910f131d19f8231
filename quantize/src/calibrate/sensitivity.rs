//! What each matrix alone would cost in fewer bits.

use super::Step;
use super::dense::Linear;
use super::divergence::{Sum, parts};
use super::forward::{Block, Network, Norm};

/// A matrix's number: 0 is `wte` with the head, then four for each block, in the order of the file.
pub(crate) fn number(layer: usize, place: usize) -> usize {
    1 + 4 * layer + place
}

/// Copies of the first windows of the checkpoint's stream, in each of which one matrix is as it would
/// be stored.
pub(crate) struct Trials {
    lengths: Vec<usize>,
    reference: Vec<f32>,
    /// With the matrix's number, in rising order.
    streams: Vec<(usize, Vec<f32>)>,
}

impl Trials {
    /// Windows of these lengths; `stored` is the stream behind the `wte` that is tried, if one is.
    pub(crate) fn new(lengths: Vec<usize>, reference: Vec<f32>, stored: Option<Vec<f32>>) -> Self {
        Self { lengths, reference, streams: stored.map(|stream| (0, stream)).into_iter().collect() }
    }

    /// Leads all copies through a block, and begins those of its own matrices: `stored` gives what is
    /// tried in a place of the block, if anything is.
    pub(crate) fn block<E>(
        &mut self,
        network: &Network,
        layer: usize,
        block: &mut Block,
        stored: &mut dyn FnMut(usize) -> Option<Linear>,
        step: Step<'_, E>,
    ) -> Result<(), E> {
        for (_, stream) in &mut self.streams {
            network.block(layer, block, stream, &self.lengths);
            step()?;
        }
        for place in 0..4 {
            let Some(mut tried) = stored(place) else { continue };
            std::mem::swap(block.matrix(place), &mut tried);
            let mut stream = self.reference.clone();
            network.block(layer, block, &mut stream, &self.lengths);
            *block.matrix(place) = tried;
            self.streams.push((number(layer, place), stream));
            step()?;
        }
        network.block(layer, block, &mut self.reference, &self.lengths);
        Ok(())
    }

    /// The mean divergence of each matrix that was tried; `stored` is the head that is tried with `wte`.
    pub(crate) fn divergences<E>(
        self,
        network: &Network,
        ln_f: &Norm,
        head: &Linear,
        stored: Option<&Linear>,
        step: Step<'_, E>,
    ) -> Result<Vec<(usize, f64)>, E> {
        let (n, kernels) = (network.width(), &network.kernels);
        let mut sums = vec![Sum::default(); self.streams.len()];
        // The checkpoint's logits are made once for all.
        for part in parts(0..self.reference.len() / n) {
            let part = part.start * n..part.end * n;
            let logits = |head: &Linear, stream: &[f32]| {
                head.apply(kernels, &network.norm(ln_f, &stream[part.clone()]))
            };
            let p = logits(head, &self.reference);
            for ((number, stream), sum) in self.streams.iter().zip(&mut sums) {
                let own = if *number == 0 { stored.unwrap_or(head) } else { head };
                sum.add(kernels, &p, &logits(own, stream), head.rows);
                step()?;
            }
        }
        Ok(self.streams.iter().zip(sums).map(|((i, _), sum)| (*i, sum.mean().kl)).collect())
    }
}
