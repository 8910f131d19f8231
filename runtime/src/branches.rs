//! Sequences that share a beginning: which slots of the cache each of them sees.
//!
//! A slot is given out once, in the order of time, so the slots of a sequence increase with its
//! positions, as they do in a text that is alone: every sum over them keeps its order, and a
//! branch computes the same bits as its text would by itself. A branch that continues another
//! copies slot numbers, never keys.

/// The tables of a session's branches.
#[derive(Debug)]
pub(crate) struct Branches<'m> {
    /// Branches at hand; 0 while the session has one text.
    count: usize,
    /// Positions below have the slot of their number in every branch.
    shared: usize,
    /// Positions that have a slot.
    len: usize,
    /// Slots that were given out.
    used: usize,
    /// Slots there are.
    slots: usize,
    /// Positions of a table.
    width: usize,
    /// `[branches][width]`: the slot of each position, and room to reorder.
    tables: &'m mut [u32],
    spare: &'m mut [u32],
    /// `[slots]`: where each slot goes when they are compacted.
    places: &'m mut [u32],
}

/// A slot that no branch sees.
const UNSEEN: u32 = u32::MAX;

/// With fewer unseen slots compacting is not worth the moves, unless there is no other way.
const FEW: usize = 64;

impl<'m> Branches<'m> {
    /// Tables for branches of at most `width` positions; `places` has an element per slot.
    pub(crate) fn new(
        width: usize,
        tables: &'m mut [u32],
        spare: &'m mut [u32],
        places: &'m mut [u32],
    ) -> Self {
        let slots = places.len();
        Self { count: 0, shared: 0, len: 0, used: 0, slots, width, tables, spare, places }
    }

    /// Branches at hand, 0 while the session has one text.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Slots that were given out: all that any branch sees are below.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The slots of a branch's positions from [`Branches::shared`] on, in increasing order.
    pub(crate) fn own(&self, branch: usize) -> &[u32] {
        &self.tables[branch * self.width..][self.shared..self.len]
    }

    /// Positions below are in the slots of their numbers.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// Splits a text of `len` tokens, in the first `len` slots, into `count` branches.
    pub(crate) fn split(&mut self, count: usize, len: usize) {
        (self.count, self.shared, self.len, self.used) = (count, len, len, len);
    }

    /// There are no branches any more.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// Branch `i` goes on where branch `parents[i]` is.
    pub(crate) fn reorder(&mut self, parents: &[u32]) {
        let own = self.shared..self.len;
        for (branch, &parent) in parents.iter().enumerate() {
            let from = &self.tables[parent as usize * self.width..][own.clone()];
            self.spare[branch * self.width..][own.clone()].copy_from_slice(from);
        }
        core::mem::swap(&mut self.tables, &mut self.spare);
        self.count = parents.len();
    }

    /// Gives each branch a slot for its next position: branch `i` gets slot `first + i`, `first`
    /// being what is returned. `None` if there are not enough.
    pub(crate) fn extend(&mut self) -> Option<usize> {
        if self.used + self.count > self.slots || self.len >= self.width {
            return None;
        }
        let first = self.used;
        for branch in 0..self.count {
            self.tables[branch * self.width + self.len] = (first + branch) as u32;
        }
        self.used += self.count;
        self.len += 1;
        Some(first)
    }

    /// Whether it is time to compact: there is no room for the next position, or many slots are
    /// unseen, which cost time in every step.
    pub(crate) fn wants_compacting(&mut self) -> bool {
        if self.used - self.shared < FEW && self.used + self.count <= self.slots {
            return false;
        }
        let seen = self.place();
        let unseen = self.used - seen;
        let full = self.used + self.count > self.slots;
        full && unseen > 0 || unseen >= FEW && unseen >= (seen - self.shared) / 4
    }

    /// Numbers the seen slots in order; returns how many slots are left with the shared ones.
    fn place(&mut self) -> usize {
        let places = &mut self.places[self.shared..self.used];
        places.fill(UNSEEN);
        for branch in 0..self.count {
            for &slot in &self.tables[branch * self.width..][self.shared..self.len] {
                places[slot as usize - self.shared] = 0;
            }
        }
        let mut next = self.shared;
        for place in places.iter_mut().filter(|place| **place != UNSEEN) {
            *place = next as u32;
            next += 1;
        }
        next
    }

    /// Moves the seen slots together, keeping their order: `move_slot(from, to)` in the order in
    /// which they have to be moved.
    pub(crate) fn compact(&mut self, mut move_slot: impl FnMut(usize, usize)) {
        let used = self.place();
        for from in self.shared..self.used {
            let to = self.places[from];
            if to != UNSEEN && to as usize != from {
                move_slot(from, to as usize);
            }
        }
        for branch in 0..self.count {
            for slot in &mut self.tables[branch * self.width..][self.shared..self.len] {
                *slot = self.places[*slot as usize];
            }
        }
        self.used = used;
        self.share_more();
    }

    /// Positions at which all branches have the slot of their number are shared.
    fn share_more(&mut self) {
        while self.shared < self.len
            && (0..self.count)
                .all(|b| self.tables[b * self.width + self.shared] as usize == self.shared)
        {
            self.shared += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// Branches as they are meant: each a list of what its positions hold.
    struct Naive {
        branches: Vec<Vec<u32>>,
        next: u32,
    }

    /// What each slot holds, moved as the cache would be.
    fn run(slots: usize, seed: u64) {
        let (count, width, prompt) = (5, 40, 7);
        let (mut tables, mut spare) = (vec![0; count * width], vec![0; count * width]);
        let mut places = vec![0; slots];
        let mut branches = Branches::new(width, &mut tables, &mut spare, &mut places);
        let mut held = vec![u32::MAX; slots];
        held.iter_mut().zip(0..prompt).for_each(|(slot, i)| *slot = i);
        let mut naive = Naive { branches: vec![(0..prompt).collect(); count], next: prompt };
        branches.split(count, prompt as usize);
        let mut state = seed;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        let mut compacted = 0;
        for step in 0..width - prompt as usize {
            if branches.wants_compacting() || random(7) == 0 {
                branches.compact(|from, to| {
                    assert!(to < from);
                    held[to] = held[from];
                });
                compacted += 1;
            }
            let Some(first) = branches.extend() else {
                // Nothing could be given up: every slot is seen.
                let seen: std::collections::BTreeSet<u32> =
                    naive.branches.iter().flatten().copied().collect();
                assert!(seen.len() + count > slots, "{step}");
                return;
            };
            for (i, branch) in naive.branches.iter_mut().enumerate() {
                held[first + i] = naive.next;
                branch.push(naive.next);
                naive.next += 1;
            }
            let few = 1 + random(count);
            let parents: Vec<u32> = (0..count).map(|_| random(few) as u32).collect();
            naive.branches = parents.iter().map(|&p| naive.branches[p as usize].clone()).collect();
            branches.reorder(&parents);
            for (i, expected) in naive.branches.iter().enumerate() {
                let shared = branches.shared();
                let own = branches.own(i);
                assert!(own.is_sorted());
                let slots = (0..shared as u32).chain(own.iter().copied());
                let found: Vec<u32> = slots.map(|slot| held[slot as usize]).collect();
                assert_eq!(found, *expected, "step {step}, branch {i}");
            }
        }
        assert!(compacted > 0);
    }

    #[test]
    fn branches_keep_their_texts() {
        for seed in 0..50 {
            run(7 + 5 * 33, seed);
            run(60, seed);
            run(13, seed);
        }
    }
}
