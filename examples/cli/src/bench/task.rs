//! What every model has to do.

use anyhow::{Result, bail};

const DEFAULT_PREFILL: usize = 512;
const DEFAULT_DECODE: usize = 128;
/// At many depths, where few tokens each are many in all, and close to the depth.
const DEFAULT_DECODE_OF_CURVE: usize = 32;
/// Depths of a curve, from none to as many as fit.
const CURVE: usize = 8;

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

/// What the user wants of it; the rest is the usual, as far as the context goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    pub prefill: Option<usize>,
    pub decode: Option<usize>,
    pub depths: Option<&'a [usize]>,
    /// Many depths, to draw a curve through.
    pub curve: bool,
}

impl Task {
    /// The task for models with `n_ctx` positions and `vocab_size` tokens.
    pub fn new(n_ctx: usize, vocab_size: u32, wishes: &Wishes<'_>) -> Result<Self> {
        let usual = if wishes.curve { DEFAULT_DECODE_OF_CURVE } else { DEFAULT_DECODE };
        let prefill = wishes.prefill.unwrap_or(DEFAULT_PREFILL.min(n_ctx));
        let decode = wishes.decode.unwrap_or(usual.min(n_ctx));
        let mut depths = match wishes.depths {
            Some(depths) => depths.to_vec(),
            None if wishes.curve => {
                let last = n_ctx.saturating_sub(decode);
                (0..CURVE).map(|i| last * i / (CURVE - 1)).collect()
            }
            None => vec![0],
        };
        depths.sort_unstable();
        depths.dedup();
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
pub(super) fn random_ids(count: usize, vocab_size: u32) -> Vec<u32> {
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
        let depths = Some(&[90, 0, 50, 0][..]);
        let wishes = Wishes { prefill: Some(60), decode: Some(10), depths, curve: false };
        let task = Task::new(100, 7, &wishes).unwrap();
        assert_eq!(task.depths, [0, 50, 90]);
        let lengths = task.depths.iter().map(|&depth| task.prefill_at(depth).len());
        assert_eq!(lengths.collect::<Vec<_>>(), [60, 50, 10]);
        assert_eq!(task.decode_at(90), &task.ids[90..]);
        assert!(task.ids.iter().all(|&id| id < 7));
    }

    #[test]
    fn what_is_not_given_fits() {
        for curve in [false, true] {
            for n_ctx in [1, 7, 40, 1024] {
                let wishes = Wishes { curve, ..Wishes::default() };
                let task = Task::new(n_ctx, 7, &wishes).unwrap();
                let last = *task.depths.last().unwrap();
                assert_eq!((task.depths[0], task.decode_at(last).len()), (0, task.decode));
                assert!(!task.prefill_at(last).is_empty());
            }
        }
        let task = Task::new(1024, 7, &Wishes { curve: true, ..Wishes::default() }).unwrap();
        assert_eq!((task.depths.len(), *task.depths.last().unwrap()), (8, 992));
        let too_deep = Wishes { depths: Some(&[1]), ..Wishes::default() };
        assert!(Task::new(40, 7, &too_deep).is_err());
        let far_too_deep = Wishes { depths: Some(&[usize::MAX]), decode: Some(1), ..too_deep };
        assert!(Task::new(40, 7, &far_too_deep).is_err());
    }
}
