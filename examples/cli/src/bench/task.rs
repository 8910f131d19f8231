//! What every model has to do.

use anyhow::{Result, bail};

const DEFAULT_PREFILL: usize = 512;
const DEFAULT_DECODE: usize = 128;

/// Tokens to read together and to make one after another, at several depths.
pub struct Task {
    /// As many tokens as the context holds.
    pub ids: Vec<u32>,
    /// Tokens that are in the cache when the others come; rising, each once.
    pub depths: Vec<usize>,
    /// Tokens read together; fewer where the context ends before.
    prefill: usize,
    /// Tokens made one after another.
    pub decode: usize,
}

impl Task {
    /// Of all that is not given the usual number, as far as `n_ctx` goes.
    pub fn new(
        n_ctx: usize,
        vocab_size: u32,
        prefill: Option<usize>,
        decode: Option<usize>,
        depths: &[usize],
    ) -> Result<Self> {
        let mut depths = depths.to_vec();
        depths.sort_unstable();
        depths.dedup();
        let prefill = prefill.unwrap_or(DEFAULT_PREFILL.min(n_ctx));
        let decode = decode.unwrap_or(DEFAULT_DECODE.min(n_ctx));
        let deepest = depths.last().copied().unwrap_or(0);
        for (option, tokens) in [
            (format!("-p {prefill}"), prefill),
            (format!("--depth {deepest} -n {decode}"), deepest.saturating_add(decode)),
        ] {
            if tokens > n_ctx {
                bail!("{option}: these are {tokens} tokens, {n_ctx} fit; give fewer");
            }
        }
        Ok(Self { ids: random_ids(n_ctx, vocab_size), depths, prefill, decode })
    }

    /// Tokens read together at a depth.
    pub fn prefill_at(&self, depth: usize) -> &[u32] {
        let end = self.ids.len().min(depth + self.prefill);
        &self.ids[depth..end]
    }

    /// Tokens made one after another at a depth.
    pub fn decode_at(&self, depth: usize) -> &[u32] {
        &self.ids[depth..depth + self.decode]
    }
}

/// Numbers of a linear congruential generator: any would do that are always the same.
fn random_ids(count: usize, vocab_size: u32) -> Vec<u32> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % u64::from(vocab_size)) as u32
    };
    (0..count).map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_rise_and_prompts_end_with_the_context() {
        let task = Task::new(100, 7, Some(60), Some(10), &[90, 0, 50, 0]).unwrap();
        assert_eq!(task.depths, [0, 50, 90]);
        let lengths = task.depths.iter().map(|&depth| task.prefill_at(depth).len());
        assert_eq!(lengths.collect::<Vec<_>>(), [60, 50, 10]);
        assert_eq!(task.decode_at(90), &task.ids[90..]);
        assert!(task.ids.iter().all(|&id| id < 7));
    }

    #[test]
    fn what_is_not_given_fits() {
        let task = Task::new(40, 7, None, None, &[0]).unwrap();
        assert_eq!((task.prefill_at(0).len(), task.decode), (40, 40));
        assert!(Task::new(40, 7, None, None, &[1]).is_err());
        assert!(Task::new(40, 7, None, Some(1), &[usize::MAX]).is_err());
    }
}
