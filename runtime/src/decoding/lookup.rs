//! Prompt lookup: what followed the last tokens where they stood before is a guess of what follows
//! them now (Saxena 2023, `prompt_lookup_num_tokens` of transformers).
//!
//! A wrong guess costs time, so drafts have a budget: see [`Drafts`].

use super::options::DecodingOptions;

/// Lengths of the runs that are looked for, the longest first. One token alone says too little.
const NGRAMS: [usize; 2] = [3, 2];

/// Prices in hundredths of a step of the model: of a drafted token (measured are 15 to 50, the
/// more the less memory is what limits a step), and what a right one saves.
const PRICE: i32 = 50;
const SAVING: i32 = 100;
/// What each token allows to be lost: 2 % of its time.
const ALLOWANCE: i32 = 2;
/// What is there at first, and most that can be saved up.
const START: i32 = 150;
const MOST: i32 = 800;

/// Drafts of a text.
///
/// Drafts are paid for before they are made, from what right ones have saved and from 2 % of the
/// time; so a text without repetitions takes at most that much longer. Their length doubles as
/// long as all of a draft is right, and falls back to what was right of it.
#[derive(Debug)]
pub(crate) struct Drafts {
    /// Most tokens that are drafted at once.
    most: usize,
    /// Tokens of the next draft.
    len: usize,
    budget: i32,
    /// The text's last token, then the draft.
    batch: [u32; 1 + DecodingOptions::MAX_PROMPT_LOOKUP],
}

impl Drafts {
    /// Drafts of at most this many tokens, 0 for none.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(DecodingOptions::MAX_PROMPT_LOOKUP);
        let batch = [0; 1 + DecodingOptions::MAX_PROMPT_LOOKUP];
        Self { most, len: most.min(2), budget: START, batch }
    }

    /// The last token of `text`, and at most `room` tokens that may follow.
    pub(crate) fn draft(&mut self, text: &[u32], room: usize) -> &[u32] {
        let affordable = (self.budget / PRICE).max(0) as usize;
        let (last, rest) = self.batch.split_first_mut().expect("it is not empty");
        *last = text.last().copied().unwrap_or_default();
        let drafted = draft(text, &mut rest[..self.len.min(room).min(affordable)]);
        &self.batch[..=drafted]
    }

    /// Tells how many tokens of the last draft were right.
    pub(crate) fn learn(&mut self, drafted: usize, right: usize) {
        let (drafts, rights) = (drafted as i32, right as i32);
        let change = ALLOWANCE * (rights + 1) + SAVING * rights - PRICE * drafts;
        self.budget = (self.budget + change).min(MOST);
        if drafted > 0 {
            let len = if right == drafted { 2 * self.len } else { right.max(1) };
            self.len = len.min(self.most);
        }
    }
}

/// Fills `draft` with a guess at what follows `text`; returns how many tokens it has.
///
/// The longest run at the end of the text that occurs before is taken, at its last occurrence. A
/// guess that reaches the end of the text goes on in itself: a text that turns in a circle is
/// guessed as far as is asked for.
fn draft(text: &[u32], draft: &mut [u32]) -> usize {
    if draft.is_empty() {
        return 0;
    }
    for size in NGRAMS {
        if text.len() <= size {
            continue;
        }
        let end = &text[text.len() - size..];
        let Some(at) = text[..text.len() - 1].windows(size).rposition(|run| run == end) else {
            continue;
        };
        let from = at + size;
        for i in 0..draft.len() {
            let at = from + i;
            draft[i] = if at < text.len() { text[at] } else { draft[at - text.len()] };
        }
        return draft.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(text: &[u32]) -> std::vec::Vec<u32> {
        let mut out = [0; 4];
        let n = draft(text, &mut out);
        out[..n].to_vec()
    }

    #[test]
    fn the_last_and_longest_repetition_counts() {
        assert_eq!(guess(&[1, 2, 3, 4, 9, 2, 3, 5, 8, 1, 2, 3]), [4, 9, 2, 3]);
        assert_eq!(guess(&[1, 2, 3, 4, 1, 2, 3, 5, 6, 7, 1, 2, 3]), [5, 6, 7, 1]);
        assert_eq!(guess(&[7, 1, 0, 7, 1, 2, 3, 4, 5, 7, 1]), [2, 3, 4, 5]);
    }

    #[test]
    fn circles_go_on() {
        assert_eq!(guess(&[1, 2, 1, 2, 1]), [2, 1, 2, 1]);
        assert_eq!(guess(&[5, 5, 5]), [5, 5, 5, 5]);
        assert_eq!(guess(&[1, 2, 3, 1, 2]), [3, 1, 2, 3]);
    }

    #[test]
    fn without_repetition_there_is_no_guess() {
        for text in [&[][..], &[1], &[1, 1], &[1, 2, 3], &[1, 2, 3, 1]] {
            assert_eq!(guess(text), [0u32; 0]);
        }
    }

    /// What drafting costs in steps per token, with a text whose drafts are right in this share.
    fn cost(right_of_ten: usize) -> f64 {
        let mut drafts = Drafts::new(10);
        let text = [1, 2, 1, 2, 1];
        let (mut tokens, mut hundredths, mut turn) = (0, 0, 0);
        while tokens < 2000 {
            let drafted = drafts.draft(&text, 100).len() - 1;
            turn += 7;
            let right = if turn % 10 < right_of_ten { drafted } else { 0 };
            drafts.learn(drafted, right);
            tokens += right + 1;
            hundredths += 100 + PRICE as usize * drafted;
        }
        hundredths as f64 / 100.0 / tokens as f64
    }

    #[test]
    fn wrong_drafts_cost_little_and_right_ones_pay() {
        assert!(cost(0) < 1.021, "{}", cost(0));
        assert!(cost(3) < 1.021, "{}", cost(3));
        assert!(cost(10) < 0.6, "{}", cost(10));
        let mut none = Drafts::new(0);
        assert_eq!(none.draft(&[1, 2, 1, 2], 100), [2]);
    }
}
