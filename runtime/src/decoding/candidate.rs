//! Tokens that may follow, and which of many are the most probable.

use core::cmp::Ordering;

/// A token that may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Candidate {
    /// Its logit, as far as it has been reshaped.
    pub value: f32,
    /// Its id.
    pub token: u32,
}

/// Most probable first, the lower id where two are equal.
pub(crate) fn by_value(a: &Candidate, b: &Candidate) -> Ordering {
    b.value.total_cmp(&a.value).then(a.token.cmp(&b.token))
}

/// The first of the largest.
pub(crate) fn argmax(values: &[f32]) -> u32 {
    let max = max(values);
    values.iter().position(|&x| x == max).unwrap_or(0) as u32
}

/// The largest; negative infinity if there is none.
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| max.max(x))
}

/// Fills `top` with its length's most probable tokens, in order; returns how many there are, fewer
/// only where the vocabulary is smaller.
///
/// One pass over the scores with a heap whose root is the worst of those kept: almost all are
/// passed over sixteen at a time.
pub(crate) fn largest(scores: &[f32], top: &mut [Candidate]) -> usize {
    let k = top.len().min(scores.len());
    let top = &mut top[..k];
    if k == 0 {
        return 0;
    }
    let (first, rest) = scores.split_at(k);
    for (token, (candidate, &value)) in top.iter_mut().zip(first).enumerate() {
        *candidate = Candidate { value, token: token as u32 };
    }
    (0..k / 2).rev().for_each(|root| sift_down(top, root));
    for (chunk, values) in rest.chunks(16).enumerate() {
        let worst = top[0].value;
        // Those equal to the worst have a higher id.
        if !values.iter().fold(false, |any, &x| any | (x > worst)) {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            if value > top[0].value {
                top[0] = Candidate { value, token: (k + chunk * 16 + i) as u32 };
                sift_down(top, 0);
            }
        }
    }
    top.sort_unstable_by(by_value);
    k
}

/// Restores the heap below `root`: a parent is not more probable than its children.
fn sift_down(heap: &mut [Candidate], mut root: usize) {
    loop {
        let mut worst = root;
        for child in 2 * root + 1..heap.len().min(2 * root + 3) {
            if by_value(&heap[child], &heap[worst]).is_gt() {
                worst = child;
            }
        }
        if worst == root {
            return;
        }
        heap.swap(root, worst);
        root = worst;
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn largest_are_those_of_a_sort() {
        let mut state = 7u64;
        for n in [1usize, 2, 15, 16, 17, 40, 333, 1000] {
            // Few different values, so that many are equal.
            let scores: Vec<f32> = (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    ((state >> 33) % 50) as f32 - 25.0
                })
                .collect();
            let mut sorted: Vec<Candidate> =
                (0..).zip(&scores).map(|(token, &value)| Candidate { value, token }).collect();
            sorted.sort_by(by_value);
            for k in [0, 1, 2, 3, 16, 40, n, n + 1] {
                let mut top = vec![Candidate::default(); k];
                let found = largest(&scores, &mut top);
                assert_eq!(found, k.min(n));
                assert_eq!(top[..found], sorted[..found], "{k} of {n}");
            }
            assert_eq!(argmax(&scores), sorted[0].token);
        }
    }
}
