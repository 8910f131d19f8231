//! What happens inside of a model while it reads a text.

use pocketgpt_runtime::session::Tap;

/// Keeps the residual stream of one layer.
#[derive(Debug)]
pub struct HiddenTap {
    layer: usize,
    /// `[tokens][n_embd]`
    pub rows: Vec<f32>,
}

impl HiddenTap {
    /// `layer`: 0 before the first block, `l` after block `l - 1`.
    pub fn new(layer: usize) -> Self {
        Self { layer, rows: Vec::new() }
    }
}

impl Tap for HiddenTap {
    fn hidden(&mut self, layer: usize, _: usize, rows: &[f32]) {
        if layer == self.layer {
            self.rows.extend(rows);
        }
    }
}

/// Keeps one layer's attention: of one head, or the mean of all.
#[derive(Debug)]
pub struct AttentionTap {
    layer: usize,
    head: Option<usize>,
    heads: usize,
    tokens: usize,
    window: usize,
    /// `[tokens][tokens]`: row `i` has the weights with which token `i` looks at each token.
    pub weights: Vec<f32>,
}

impl AttentionTap {
    /// For a text of `tokens` tokens, of whose positions the session keeps the last `window`.
    pub fn new(
        layer: usize,
        head: Option<usize>,
        heads: usize,
        tokens: usize,
        window: usize,
    ) -> Self {
        Self { layer, head, heads, tokens, window, weights: vec![0.0; tokens * tokens] }
    }
}

impl Tap for AttentionTap {
    fn wants_attention(&mut self, layer: usize) -> bool {
        layer == self.layer
    }

    fn attention(&mut self, _: usize, head: usize, position: usize, weights: &[f32]) {
        let share = match self.head {
            Some(wanted) if wanted != head => return,
            Some(_) => 1.0,
            None => 1.0 / self.heads as f32,
        };
        let row = &mut self.weights[position * self.tokens..][..self.tokens];
        for (slot, weight) in weights.iter().enumerate() {
            row[position_of_slot(slot, position, self.window)] += share * weight;
        }
    }
}

/// The last position up to `position` that is kept in a slot of a ring of `window` slots.
fn position_of_slot(slot: usize, position: usize, window: usize) -> usize {
    position - (position % window + window - slot) % window
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_positions_until_the_window_slides() {
        for slot in 0..=5 {
            assert_eq!(position_of_slot(slot, 5, 8), slot);
        }
        // Slots 0 to 3 of a window of 4, at position 9: 8, 9, 6, 7.
        let found: Vec<usize> = (0..4).map(|slot| position_of_slot(slot, 9, 4)).collect();
        assert_eq!(found, [8, 9, 6, 7]);
    }

    #[test]
    fn heads_are_picked_or_averaged() {
        let feed = |head| {
            let mut tap = AttentionTap::new(1, head, 2, 2, 4);
            assert!(tap.wants_attention(1) && !tap.wants_attention(0));
            for (head, weights) in [(0, [0.25, 0.75]), (1, [1.0, 0.0])] {
                tap.attention(1, head, 0, &[1.0]);
                tap.attention(1, head, 1, &weights);
            }
            tap.weights
        };
        assert_eq!(feed(Some(0)), [1.0, 0.0, 0.25, 0.75]);
        assert_eq!(feed(Some(1)), [1.0, 0.0, 1.0, 0.0]);
        assert_eq!(feed(None), [1.0, 0.0, 0.625, 0.375]);
    }
}
