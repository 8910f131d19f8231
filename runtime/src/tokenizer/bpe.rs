//! Byte-pair merges of one word.

use super::TokenizerView;
use super::pretokenize::Word;
use core::ops::Range;

/// Elements of scratch for each byte of a word: a symbol, and at most two entries of the queue.
pub(super) const SCRATCH_PER_BYTE: usize = SYMBOL_LEN + 2 * ENTRY_LEN;

/// Id, index of the symbol before, index of the symbol after.
type Symbol = [u32; SYMBOL_LEN];
const SYMBOL_LEN: usize = 3;
const ID: usize = 0;
const PREV: usize = 1;
const NEXT: usize = 2;

/// Rank of a merge, index of its left symbol: in this order, the lowest rank comes first, and of
/// equal ranks the leftmost.
type Entry = [u32; ENTRY_LEN];
const ENTRY_LEN: usize = 2;

/// No symbol on this side, or in place of an id: merged into the one before.
const NONE: u32 = u32::MAX;

/// Merges the bytes of `word` and hands each token to `sink` with its range of bytes in the word
/// (the space of a prefixed word is byte 0).
///
/// `scratch` holds at least `word.len() * SCRATCH_PER_BYTE` elements, of any content.
pub(super) fn merge_word<E>(
    view: &TokenizerView<'_>,
    word: Word<'_>,
    scratch: &mut [u32],
    mut sink: impl FnMut(u32, Range<usize>) -> Result<(), E>,
) -> Result<(), E> {
    let len = word.len();
    let bytes = (word.prefixed.then_some(b' ').into_iter()).chain(word.text.bytes());
    if len == 1 {
        return bytes.into_iter().try_for_each(|byte| sink(view.byte_id(byte), 0..1));
    }

    let (symbols, queue) = scratch.split_at_mut(len * SYMBOL_LEN);
    let symbols: &mut [Symbol] = symbols.as_chunks_mut().0;
    let mut queue = Queue::new(queue.as_chunks_mut().0);

    for (index, (symbol, byte)) in (0u32..).zip(symbols.iter_mut().zip(bytes)) {
        *symbol = [view.byte_id(byte), index.wrapping_sub(1), index + 1];
    }
    symbols[0][PREV] = NONE;
    symbols[len - 1][NEXT] = NONE;
    for (index, pair) in (0..).zip(symbols.windows(2)) {
        if let Some((rank, _)) = view.merge(pair[0][ID], pair[1][ID]) {
            queue.append([rank, index]);
        }
    }
    queue.heapify();

    // Every merge takes one entry and adds at most two, and there are fewer than `len` merges.
    while let Some([rank, at]) = queue.pop() {
        let at_index = at as usize;
        let [left, prev, next] = symbols[at_index];
        if left == NONE || next == NONE {
            continue;
        }
        let [right, _, after] = symbols[next as usize];
        // An entry is out of date when one of its symbols has grown since.
        let merged = match view.merge(left, right) {
            Some((now, merged)) if now == rank => merged,
            _ => continue,
        };
        symbols[at_index] = [merged, prev, after];
        symbols[next as usize][ID] = NONE;
        if prev != NONE
            && let Some((rank, _)) = view.merge(symbols[prev as usize][ID], merged)
        {
            queue.push([rank, prev]);
        }
        if after != NONE {
            symbols[after as usize][PREV] = at;
            if let Some((rank, _)) = view.merge(merged, symbols[after as usize][ID]) {
                queue.push([rank, at]);
            }
        }
    }

    let mut at = 0;
    while at < len {
        let [id, _, next] = symbols[at];
        let end = if next == NONE { len } else { next as usize };
        sink(id, at..end)?;
        at = end;
    }
    Ok(())
}

/// A binary heap in borrowed memory, the smallest entry first.
struct Queue<'s> {
    entries: &'s mut [Entry],
    len: usize,
}

impl<'s> Queue<'s> {
    fn new(entries: &'s mut [Entry]) -> Self {
        Self { entries, len: 0 }
    }

    /// Adds an entry without order; [`heapify`](Self::heapify) has to follow.
    fn append(&mut self, entry: Entry) {
        self.entries[self.len] = entry;
        self.len += 1;
    }

    fn heapify(&mut self) {
        for index in (0..self.len / 2).rev() {
            self.sift_down(index);
        }
    }

    fn push(&mut self, entry: Entry) {
        self.append(entry);
        let mut child = self.len - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if self.entries[parent] <= entry {
                break;
            }
            self.entries[child] = self.entries[parent];
            child = parent;
        }
        self.entries[child] = entry;
    }

    fn pop(&mut self) -> Option<Entry> {
        self.len = self.len.checked_sub(1)?;
        let first = self.entries[0];
        self.entries[0] = self.entries[self.len];
        self.sift_down(0);
        Some(first)
    }

    fn sift_down(&mut self, mut parent: usize) {
        let entries = &mut self.entries[..self.len];
        let Some(&entry) = entries.get(parent) else {
            return;
        };
        loop {
            let left = 2 * parent + 1;
            let Some(pair) = entries.get(left..(left + 2).min(self.len)) else {
                break;
            };
            let child = match *pair {
                [a, b] if b < a => left + 1,
                [_, ..] => left,
                [] => break,
            };
            if entries[child] >= entry {
                break;
            }
            entries[parent] = entries[child];
            parent = child;
        }
        entries[parent] = entry;
    }
}

#[cfg(all(test, feature = "alloc"))]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn queue_gives_entries_in_order(
            first in prop::collection::vec(any::<[u32; 2]>(), 0..50),
            later in prop::collection::vec(any::<[u32; 2]>(), 0..50),
        ) {
            let mut memory = vec![[0; 2]; first.len() + later.len()];
            let mut queue = Queue::new(&mut memory);
            first.iter().for_each(|&entry| queue.append(entry));
            queue.heapify();
            later.iter().for_each(|&entry| queue.push(entry));
            let mut wanted: Vec<_> = first.into_iter().chain(later).collect();
            wanted.sort_unstable();
            let found: Vec<_> = core::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
