//! `top_p`

use super::Shortlist;
use crate::decoding::candidate::by_value;

/// Drops the least probable candidates as long as together they stay within `1 - top_p` (Holtzman
/// et al. 2020). What is kept is in order.
pub(super) fn keep(top_p: f32, list: &mut Shortlist<'_>) {
    let n = list.len;
    let total = list.weigh().2;
    let allowed = (1.0 - f64::from(top_p)) * total;
    // Those below their share of what may go, go in any case: no need to sort them.
    let share = allowed / n as f64;
    // The most probable ones, of weight 1, stay: where all are alike that is a share as well.
    let (kept, mut dropped) = list.partition(|w| w >= 1.0 || f64::from(w) > share);
    list.len = kept;
    list.candidates[..kept].sort_unstable_by(by_value);
    let weights = list.weigh().1;
    let mut kept = kept;
    while kept > 1 {
        dropped += f64::from(weights[kept - 1]);
        if dropped > allowed {
            break;
        }
        kept -= 1;
    }
    list.len = kept;
}
