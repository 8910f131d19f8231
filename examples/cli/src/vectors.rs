//! Texts as vectors, and how alike they are.

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Parallel;
use pocketgpt_runtime::session::Session;

use crate::inside::HiddenTap;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pool {
    /// The mean over the tokens
    Mean,
    /// The vector of the last token, which has seen the whole text
    Last,
    /// None: each token is shown for itself
    None,
}

impl Pool {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Last => "last",
            Self::None => "none",
        }
    }

    /// Vectors `[m][n_embd]` of a text from those of its tokens.
    pub fn apply(self, tokens: &[f32], n_embd: usize) -> Vec<f32> {
        match self {
            Self::Mean => mean(tokens, n_embd),
            Self::Last => tokens[tokens.len() - n_embd..].to_vec(),
            Self::None => tokens.to_vec(),
        }
    }
}

fn mean(rows: &[f32], n_embd: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; n_embd];
    for row in rows.chunks_exact(n_embd) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    let count = (rows.len() / n_embd) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

/// The rows of `wte` for tokens: `[tokens][n_embd]`. They know nothing of the text around them.
pub fn token_embeddings(model: &Gpt2<'_>, ids: &[u32]) -> Vec<f32> {
    let n_embd = model.config().n_embd as usize;
    let mut rows = vec![0.0; ids.len() * n_embd];
    for (&id, row) in ids.iter().zip(rows.chunks_exact_mut(n_embd)) {
        model.token_embedding(id, row);
    }
    rows
}

/// Hidden states `[tokens][n_embd]` of a text at a layer, counted as in transformers: 0 is
/// `wte + wpe`, `l` what block `l - 1` leaves; the last one is behind `ln_f`.
pub fn hidden_states(
    session: &mut Session<'_, '_>,
    par: &dyn Parallel,
    ids: &[u32],
    layer: usize,
) -> Result<Vec<f32>> {
    let mut tap = HiddenTap::new(layer);
    session.truncate(0);
    session.feed_tapped(ids, par, &mut tap).map_err(|error| anyhow!("{error}"))?;
    if layer < session.model().config().n_layer as usize {
        return Ok(tap.rows);
    }
    let mut rows = vec![0.0; tap.rows.len()];
    Session::final_norm(session.model(), &tap.rows, &mut rows);
    Ok(rows)
}

/// A vector at length 1, or nothing but zeros.
pub fn unit(x: &[f32]) -> Vec<f64> {
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.into_iter().map(|x| if length > 0.0 { x / length } else { 0.0 }).collect()
}

/// The cosine of the angle between two vectors of length 1.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools() {
        let rows = [1.0, 2.0, 3.0, 6.0];
        assert_eq!(Pool::Mean.apply(&rows, 2), [2.0, 4.0]);
        assert_eq!(Pool::Last.apply(&rows, 2), [3.0, 6.0]);
        assert_eq!(Pool::None.apply(&rows, 2), rows);
        assert_eq!(Pool::None.name(), "none");
    }

    #[test]
    fn cosines() {
        let [x, y, xy] = [[2.0, 0.0], [0.0, 0.5], [1.0, 1.0]].map(|v| unit(&v));
        assert_eq!(cosine(&x, &y), 0.0);
        assert!((cosine(&x, &xy) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&x, &x), 1.0);
        assert_eq!(cosine(&unit(&[0.0, 0.0]), &x), 0.0);
    }
}
