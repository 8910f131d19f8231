//! `min_p`

use super::Shortlist;

/// Drops candidates less probable than `min_p` times the most probable one, whose weight is 1.
pub(super) fn keep(min_p: f32, list: &mut Shortlist<'_>) {
    list.weigh();
    list.len = list.partition(|w| w >= min_p).0;
}
