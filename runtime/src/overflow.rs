//! What happens when a text has used all positions of the model.
//!
//! `wpe` has `n_ctx` rows and is added to a token before the first block, so cached keys and values
//! belong to their positions for good: they cannot be moved to lower ones, only computed anew. What
//! every policy keeps is the beginning of the text, which stays where it is: the first tokens have
//! the same keys and values in every context that begins with them.

/// What a session does when all `n_ctx` positions are used and another token comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// It refuses the token: the text ends.
    #[default]
    Stop,
    /// It forgets all but the first `keep` and the last `tail` tokens, and reads the latter anew
    /// behind the former: one long pause each time.
    Refill,
    /// As [`Overflow::Refill`], bit for bit, but without the pause: as soon as a token is to be
    /// among the last ones it is also read into a second cache, as one more row of the batch.
    Shadow,
}

impl Overflow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Stop, Self::Refill, Self::Shadow];

    /// Name for `--overflow` and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Refill => "refill",
            Self::Shadow => "shadow",
        }
    }
}

impl core::fmt::Display for Overflow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a session is in its text: all it knows besides the caches and the tokens in them.
///
/// The shadow's position follows from this: see [`Rules::shadow_position`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Tokens of the text that were fed.
    pub(crate) fed: usize,
    /// Position of the next token: tokens that are in the context.
    pub(crate) position: usize,
    /// Which of the caches is in use; the other one is the shadow.
    pub(crate) live: usize,
}

impl Progress {
    /// Tokens that the text has between the kept ones and those behind them in the context.
    pub(crate) fn dropped(self) -> usize {
        self.fed - self.position
    }
}

/// How positions are used, which does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) overflow: Overflow,
    pub(crate) n_ctx: usize,
    /// First tokens of the text that stay.
    pub(crate) keep: usize,
    /// Tokens behind them when the context begins anew; 0 where it never does.
    pub(crate) tail: usize,
}

impl Rules {
    /// Largest `keep` of a context that begins anew: less than half of it.
    pub(crate) const fn max_keep(n_ctx: usize) -> usize {
        (n_ctx - 1) / 2
    }

    /// Tokens behind the kept ones where nothing else is said: half of the positions that are left.
    /// The shadow then begins where the last swap ended.
    pub(crate) const fn default_tail(n_ctx: usize, keep: usize) -> usize {
        (n_ctx - keep) / 2
    }

    /// Largest `tail`: there must be a position for another token, and time for the shadow.
    pub(crate) fn max_tail(overflow: Overflow, n_ctx: usize, keep: usize) -> usize {
        match overflow {
            Overflow::Shadow => Self::default_tail(n_ctx, keep),
            _ => n_ctx - keep - 1,
        }
    }

    /// Position of the first token that is read behind the beginning of a context.
    pub(crate) fn restart(&self) -> usize {
        self.keep + self.tail
    }

    /// Position from which on tokens are also read into the shadow.
    pub(crate) fn shadow_start(&self) -> usize {
        self.n_ctx - self.tail
    }

    /// Position of the shadow's next token when that of the context is `position`.
    pub(crate) fn shadow_position(&self, position: usize) -> usize {
        self.keep.min(position) + position.saturating_sub(self.shadow_start())
    }

    /// Positions that are in the shadow when that of the context is `position`: none where there is
    /// no shadow.
    pub(crate) fn shadow_positions(&self, position: usize) -> usize {
        match self.overflow {
            Overflow::Shadow => self.shadow_position(position),
            _ => 0,
        }
    }

    /// Whether a text of which `fed` tokens were read can be at `position`.
    pub(crate) fn reaches(&self, fed: u64, position: u32) -> bool {
        let (n_ctx, restart) = (self.n_ctx as u64, self.restart() as u64);
        match fed.checked_sub(u64::from(position)) {
            _ if u64::from(position) > n_ctx => false,
            None => false,
            Some(0) => true,
            Some(_) if self.overflow == Overflow::Stop => false,
            // Each time the context begins anew as many positions are left behind.
            Some(dropped) => {
                u64::from(position) >= restart && dropped.is_multiple_of(n_ctx - restart)
            }
        }
    }

    /// Of tokens that go on from `position` those behind the last beginning of a context on the
    /// way, where there is one, and how many times the context begins anew.
    pub(crate) fn behind_last_restart(&self, position: usize, tokens: usize) -> Option<Restarts> {
        let over = (position + tokens).checked_sub(self.n_ctx).filter(|&over| over > 0)?;
        let step = self.n_ctx - self.restart();
        let count = over.div_ceil(step);
        Some(Restarts { count, tokens: over - (count - 1) * step })
    }
}

/// Beginnings of contexts on the way through some tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restarts {
    pub(crate) count: usize,
    /// Tokens behind the last one, 1 at least.
    pub(crate) tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(n_ctx: usize, keep: usize, tail: usize) -> Rules {
        Rules { overflow: Overflow::Shadow, n_ctx, keep, tail }
    }

    /// Token by token.
    fn naive(rules: &Rules, mut position: usize, tokens: usize) -> Option<Restarts> {
        let (mut count, mut behind) = (0, 0);
        for _ in 0..tokens {
            if position == rules.n_ctx {
                (position, behind) = (rules.restart(), 0);
                count += 1;
            }
            position += 1;
            behind += 1;
        }
        (count > 0).then_some(Restarts { count, tokens: behind })
    }

    #[test]
    fn restarts_are_those_of_single_tokens() {
        for n_ctx in 2..12 {
            for keep in 0..=Rules::max_keep(n_ctx) {
                for tail in 1..=Rules::max_tail(Overflow::Refill, n_ctx, keep) {
                    let rules = rules(n_ctx, keep, tail);
                    for position in 0..=n_ctx {
                        for tokens in 0..40 {
                            let expected = naive(&rules, position, tokens);
                            assert_eq!(rules.behind_last_restart(position, tokens), expected);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn positions_that_texts_reach() {
        for n_ctx in 2..8 {
            for keep in 0..=Rules::max_keep(n_ctx) {
                for tail in 1..=Rules::max_tail(Overflow::Refill, n_ctx, keep) {
                    let rules = rules(n_ctx, keep, tail);
                    let mut reached = std::vec::Vec::new();
                    let mut position = 0;
                    for fed in 0..64 {
                        reached.push((position, fed));
                        // A context may have begun anew while nothing has been read behind it.
                        if position == n_ctx {
                            position = rules.restart();
                            reached.push((position, fed));
                        }
                        position += 1;
                    }
                    for (position, fed) in (0..10).flat_map(|p| (0..64).map(move |fed| (p, fed))) {
                        let expected = reached.contains(&(position, fed));
                        assert_eq!(rules.reaches(fed as u64, position as u32), expected);
                        let stops = Rules { overflow: Overflow::Stop, tail: 0, ..rules };
                        let alone = position == fed && fed <= n_ctx;
                        assert_eq!(stops.reaches(fed as u64, position as u32), alone);
                    }
                }
            }
        }
    }

    #[test]
    fn the_shadow_is_ready_when_it_is_needed() {
        for n_ctx in 2..40 {
            for keep in 0..=Rules::max_keep(n_ctx) {
                for tail in 1..=Rules::max_tail(Overflow::Shadow, n_ctx, keep) {
                    let rules = rules(n_ctx, keep, tail);
                    assert_eq!(rules.shadow_position(n_ctx), rules.restart());
                    // It has nothing but the kept tokens when a context has begun.
                    assert_eq!(rules.shadow_position(rules.restart()), keep);
                    assert!(rules.shadow_start() > keep);
                    // Never more than one token behind another.
                    for position in keep..n_ctx {
                        let now = rules.shadow_position(position);
                        assert!(rules.shadow_position(position + 1) - now <= 1);
                    }
                }
            }
        }
    }
}
