//! Quantization that knows what a model's layers are fed with.
//!
//! Two residual streams go through the layers side by side: that of the checkpoint, and that of the
//! file as far as it is made. Before a matrix is rounded, it is moved to where its output, computed
//! from the file's stream, comes nearest to the checkpoint's (least squares); then its inputs are
//! rounded one after another, each error fed to those behind it (GPTQ); its bias takes the mean
//! of what is left. So each layer also makes good what the layers before it lost.
//!
//! Everything that decides bytes runs on the runtime's kernels or on `+ - * /` in a fixed order.

mod dense;
mod divergence;
mod factor;
mod fit;
mod forward;
mod moments;
mod rounding;
mod sensitivity;
pub(crate) mod text;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::Encoding;
use pocketgpt_runtime::kernels::Kernels;

pub(crate) use dense::Linear;
pub(crate) use divergence::{Divergence, divergence};
pub(crate) use fit::{Fitted, fit, fit_each, loss};
pub(crate) use forward::add;
use forward::subtract;
pub(crate) use forward::{Block, Network, Norm};
pub(crate) use moments::Moments;
pub(crate) use sensitivity::{Trials, number};
use text::{Chunk, Windows};

/// Tokens on which single matrices are tried.
const TRIAL_TOKENS: usize = 2048;

/// Parts of work, between which it can be stopped.
pub(crate) type Step<'a, E> = &'a mut dyn FnMut() -> Result<(), E>;

/// The text in a model, and its streams.
pub(crate) struct Calibration {
    pub(crate) network: Network,
    text: Windows,
    chunks: Vec<Chunk>,
    /// `[tokens][n_embd]`: the checkpoint's residual stream.
    reference: Vec<f32>,
    /// The file's.
    stored: Vec<f32>,
}

/// A block's matrices in the order of the file.
pub(crate) type FittedBlock = [Fitted; 4];

impl Calibration {
    pub(crate) fn new(config: Gpt2Config, text: Windows) -> Self {
        let chunks = text.chunks();
        let network = Network { kernels: Kernels::best(), config };
        Self { network, text, chunks, reference: vec![], stored: vec![] }
    }

    /// Begins the checkpoint's stream alone.
    pub(crate) fn embed_reference(&mut self, reference: &Linear, wpe: &[f32]) {
        self.reference = self.network.embed(reference, wpe, &self.text.tokens, &self.text.windows);
    }

    /// Begins both streams.
    pub(crate) fn embed(
        &mut self,
        reference: &Linear,
        stored: &Linear,
        wpe: &[f32],
        stored_wpe: &[f32],
    ) {
        self.embed_reference(reference, wpe);
        let (tokens, windows) = (&self.text.tokens, &self.text.windows);
        self.stored = self.network.embed(stored, stored_wpe, tokens, windows);
    }

    /// The checkpoint's stream alone through one block; gives the moments of its matrices' inputs
    /// if they are asked for.
    pub(crate) fn survey<E>(
        &mut self,
        layer: usize,
        block: &Block,
        measure: bool,
        step: Step<'_, E>,
    ) -> Result<Option<[Moments; 4]>, E> {
        let n = self.network.width();
        let mut moments = measure.then(|| [n, n, n, block.mlp_c_proj.cols].map(Moments::unmoved));
        for chunk in &self.chunks {
            let x = &mut self.reference[chunk.tokens.start * n..chunk.tokens.end * n];
            let mut tap = |place: usize, inputs: &[f32]| {
                if let (Some(moments), true) = (&mut moments, chunk.fitted) {
                    moments[place].add(&self.network.kernels, inputs, &[]);
                }
            };
            self.network.block_with(layer, block, x, &chunk.lengths, &mut tap);
            step()?;
        }
        Ok(moments)
    }

    /// The stream in its first windows, to try single matrices on; `stored` is the `wte` that is tried, if
    /// one is.
    pub(crate) fn trials(&self, wte: &Linear, stored: Option<&Linear>, wpe: &[f32]) -> Trials {
        let mut count = 0;
        let mut tokens = 0;
        for window in &self.text.windows {
            if count > 0 && tokens + window.len() > TRIAL_TOKENS {
                break;
            }
            (count, tokens) = (count + 1, tokens + window.len());
        }
        let windows = &self.text.windows[..count];
        let lengths = windows.iter().map(|w| w.len()).collect();
        let embed = |wte| self.network.embed(wte, wpe, &self.text.tokens[..tokens], windows);
        Trials::new(lengths, embed(wte), stored.map(embed))
    }

    /// Gives back the memory of the checkpoint's stream.
    pub(crate) fn drop_reference(&mut self) {
        self.reference = vec![];
    }

    /// Second moments of what the head gets: of the checkpoint's stream, or of the file's.
    pub(crate) fn head_moments(&self, ln_f: &Norm, of_stored: bool) -> Moments {
        let n = self.network.width();
        let mut moments = Moments::new(n, 0);
        let stream = if of_stored { &self.stored } else { &self.reference };
        for chunk in self.chunks.iter().filter(|chunk| chunk.fitted) {
            let x = &stream[chunk.tokens.start * n..chunk.tokens.end * n];
            moments.add(&self.network.kernels, &self.network.norm(ln_f, x), &[]);
        }
        moments
    }

    /// Both streams through one block, whose matrices become those of the file.
    pub(crate) fn block<E>(
        &mut self,
        layer: usize,
        block: &Block,
        encodings: [Encoding; 4],
        step: Step<'_, E>,
    ) -> Result<FittedBlock, E> {
        let n = self.network.width();
        let Self { network, chunks, reference, stored, .. } = self;
        let kernels = &network.kernels;
        let range = |chunk: &Chunk| chunk.tokens.start * n..chunk.tokens.end * n;

        // A matrix behind LayerNorm is to give what it gives in the checkpoint.
        let fit_normed = |reference: &[f32],
                          stored: &[f32],
                          norm,
                          linear: &Linear,
                          encoding,
                          step: Step<'_, E>| {
            let mut moments = Moments::new(n, linear.rows);
            for chunk in chunks.iter().filter(|chunk| chunk.fitted) {
                let inputs = network.norm(norm, &stored[range(chunk)]);
                let mut lacks = network.norm(norm, &reference[range(chunk)]);
                subtract(&mut lacks, &inputs);
                moments.add(kernels, &inputs, &linear.apply_unbiased(kernels, &lacks));
                step()?;
            }
            fit(linear, encoding, &moments, step)
        };

        let c_attn = fit_normed(reference, stored, &block.ln_1, &block.c_attn, encodings[0], step)?;

        // One that adds to the stream is to bring it to where it is in the checkpoint.
        let mut attended = vec![0.0; stored.len()];
        let mut moments = Moments::new(n, n);
        for chunk in &*chunks {
            let lengths = &chunk.lengths;
            let reference = &mut reference[range(chunk)];
            let qkv = block.c_attn.apply(kernels, &network.norm(&block.ln_1, reference));
            let attention = network.attention(layer, &qkv, lengths);
            add(reference, &block.attn_c_proj.apply(kernels, &attention));
            let stored = &stored[range(chunk)];
            let qkv = c_attn.linear.apply(kernels, &network.norm(&block.ln_1, stored));
            let inputs = network.attention(layer, &qkv, lengths);
            if chunk.fitted {
                let mut lacks = reference.to_vec();
                subtract(&mut lacks, stored);
                subtract(&mut lacks, &block.attn_c_proj.apply(kernels, &inputs));
                moments.add(kernels, &inputs, &lacks);
            }
            attended[range(chunk)].copy_from_slice(&inputs);
            step()?;
        }
        let attn_c_proj = fit(&block.attn_c_proj, encodings[1], &moments, step)?;
        for chunk in &*chunks {
            let inputs = &attended[range(chunk)];
            add(&mut stored[range(chunk)], &attn_c_proj.linear.apply(kernels, inputs));
        }
        drop(attended);

        let c_fc = fit_normed(reference, stored, &block.ln_2, &block.c_fc, encodings[2], step)?;

        let mut moments = Moments::new(block.mlp_c_proj.cols, n);
        for chunk in &*chunks {
            let reference = &mut reference[range(chunk)];
            let hidden = network.hidden(&block.ln_2, &block.c_fc, reference);
            add(reference, &block.mlp_c_proj.apply(kernels, &hidden));
            if chunk.fitted {
                let stored = &stored[range(chunk)];
                let inputs = network.hidden(&block.ln_2, &c_fc.linear, stored);
                let mut lacks = reference.to_vec();
                subtract(&mut lacks, stored);
                subtract(&mut lacks, &block.mlp_c_proj.apply(kernels, &inputs));
                moments.add(kernels, &inputs, &lacks);
            }
            step()?;
        }
        let mlp_c_proj = fit(&block.mlp_c_proj, encodings[3], &moments, step)?;
        for chunk in &*chunks {
            let stored = &mut stored[range(chunk)];
            let inputs = network.hidden(&block.ln_2, &c_fc.linear, stored);
            add(stored, &mlp_c_proj.linear.apply(kernels, &inputs));
            step()?;
        }
        Ok([c_attn, attn_c_proj, c_fc, mlp_c_proj])
    }

    /// How far the file's predictions are from the checkpoint's, on the windows that nothing was
    /// fitted to; `None` without such.
    pub(crate) fn divergence(
        &self,
        ln_f: &Norm,
        reference: &Linear,
        stored: &Linear,
    ) -> Option<Divergence> {
        let (n, network) = (self.network.width(), &self.network);
        let first = self.text.windows.get(self.text.fitted)?.start;
        let (p, q) = (&self.reference[first * n..], &self.stored[first * n..]);
        let (p, q) = (network.norm(ln_f, p), network.norm(ln_f, q));
        Some(divergence(&network.kernels, (&p, reference), (&q, stored), 0..p.len() / n))
    }
}
