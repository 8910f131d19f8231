//! Kernels for x86-64.

pub(super) mod avx2;
pub(super) mod avx512vnni;

/// How many groups' scales are prepared before their weights are read: all of a row of 2048 inputs.
///
/// Reading scales and weights in turns, two streams a few hundred bytes apart, keeps the hardware
/// from fetching either ahead: on Zen 4 a matrix in memory is read at 10 to 18 GB/s that way, and at
/// 29 GB/s, as fast as by plain loads, when the scales of a record are read first.
const SCALES_AT_ONCE: usize = 64;
