//! Weights and a head's cache asked for well ahead of the one token that reads them, on CPUs that need it.
//! Products of several tokens ask for the next record where this says so, those of many with AVX2 always
//! (`Tile::ASKS_ALWAYS`).
//!
//! For one token Zen 4 fetches a matrix ahead by itself, at the speed of plain loads, and whoever asks for
//! more than 256 bytes ahead slows it down. Zen 5 reads 1.7 times as fast, but only when it is asked, Intel's
//! CPUs with AVX512-FP16 up to twice as fast: see `docs/performance.md`. Those want it in another way.

use core::arch::x86_64::*;
use core::sync::atomic::{AtomicU8, Ordering};

use super::{prefetch_line, prefetch_line_to_second};
use crate::quant::tile::{self, ROWS};

/// How far ahead. On Zen 5 8 KB are 1 to 2 % faster where all comes from memory, 12 KB up to 7 % where half
/// of it is in the cache.
const BYTES: usize = 10 << 10;

/// How far ahead of its use a line is asked for in the first cache, if all are in the second. (3 and 5 KB: no
/// difference.)
const NEAR_BYTES: usize = 1 << 10;

pub(super) const AMD: &[u8] = b"AuthenticAMD";

/// Zen 5's. Later ones are taken to be alike.
const ZEN_5: u32 = 0x1a;

/// Intel's Xeons with AVX-512 have it since Sapphire Rapids. Other CPUs of Intel's are untried, so they are not
/// asked.
const AVX512_FP16: u32 = 1 << 23;

/// How a CPU is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernels) enum Way {
    /// Not at all.
    Never = 0,
    /// For each line in the first cache.
    First = 1,
    /// For what a product of one token reads: for each line in the second cache, and when it is nearer for one
    /// of a group in the first, by which the hardware sees that they are read. Else as [`Way::First`]. On
    /// Sapphire Rapids weights come as fast from the third cache, and from memory 1.2 to 1.4 times as fast.
    Second = 2,
}

/// How this CPU is asked.
#[inline]
pub(in crate::kernels) fn way() -> Way {
    static ANSWER: Answer = Answer::unknown();
    #[cfg(test)]
    if let Some(way) = tests::DECIDED.get() {
        return way;
    }
    match ANSWER.get(|| way_here() as u8) {
        0 => Way::Never,
        1 => Way::First,
        _ => Way::Second,
    }
}

/// Whether this CPU needs it.
#[inline]
pub(in crate::kernels) fn is_needed() -> bool {
    way() != Way::Never
}

/// Asked for once: in a virtual machine it takes microseconds.
pub(super) struct Answer(AtomicU8);

impl Answer {
    const UNKNOWN: u8 = u8::MAX;

    pub(super) const fn unknown() -> Self {
        Self(AtomicU8::new(Self::UNKNOWN))
    }

    /// A number below 255.
    #[inline]
    pub(super) fn get(&self, ask: fn() -> u8) -> u8 {
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => {
                let answer = ask();
                self.0.store(answer, Ordering::Relaxed);
                answer
            }
            answer => answer,
        }
    }
}

#[cold]
fn way_here() -> Way {
    if cfg!(miri) {
        return Way::Never;
    }
    let first = __cpuid(0);
    let extended = if first.eax >= 7 { __cpuid_count(7, 0).edx } else { 0 };
    way_of(vendor(&first).as_flattened(), __cpuid(1).eax, extended)
}

/// The name in leaf 0.
pub(super) fn vendor(leaf: &CpuidResult) -> [[u8; 4]; 3] {
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes)
}

/// Of a CPU of this vendor, signature and extended features (the last register of leaf 7).
fn way_of(vendor: &[u8], signature: u32, extended: u32) -> Way {
    match vendor {
        AMD if family(signature) >= ZEN_5 => Way::First,
        b"GenuineIntel" if extended & AVX512_FP16 != 0 => Way::Second,
        _ => Way::Never,
    }
}

/// The family in the first register of leaf 1 (AMD64 Architecture Programmer's Manual, volume 3,
/// appendix E.3.1).
pub(super) const fn family(signature: u32) -> u32 {
    let (base, extended) = (signature >> 8 & 0xf, signature >> 20 & 0xff);
    if base == 0xf { base + extended } else { base }
}

/// Asks for what the product of one token will read: while a group is multiplied, for as many bytes as it
/// takes with its block scales. In the way of [`Way::Second`] if `SECOND`, else of [`Way::First`].
///
/// Whatever the product reads itself, lines are asked for evenly and in the order of their addresses, and
/// none is left out: the hardware takes that up and fetches on. Asked for weights and for scales where
/// each of them is read, it gives 37 instead of 50 GB/s.
pub(super) struct Ahead<const SECOND: bool> {
    next: *const u8,
}

impl<const SECOND: bool> Ahead<SECOND> {
    /// [`BYTES`] behind the beginning of a record. Asks for as much as its row scales take.
    #[inline(always)]
    pub(super) fn of(record: &[u8]) -> Self {
        let mut ahead = Self { next: record.as_ptr().wrapping_add(BYTES) };
        ahead.ask_line(0);
        ahead.next = ahead.next.wrapping_add(tile::ROW_SCALES_BYTES);
        ahead
    }

    /// For a line of a group's weights, where it is read. With AVX-512 in q8, 47 GB/s are read that way
    /// and 37 if all lines of a group are asked for before one is read; for the slower AVX2 it is all the same.
    #[inline(always)]
    pub(super) fn ask_line(&self, line: usize) {
        let address = self.next.wrapping_add(64 * line);
        if !SECOND {
            return prefetch_line(address);
        }
        prefetch_line_to_second(address);
        if line == 0 {
            prefetch_line(address.wrapping_sub(BYTES - NEAR_BYTES));
        }
    }

    /// For what a group's block scales take: for a line, of which the next group takes the rest.
    #[inline(always)]
    pub(super) fn end_group(&mut self, weights: usize) {
        self.ask_line(weights / 64);
        self.next = self.next.wrapping_add(weights + ROWS);
    }

    /// For all that a group takes.
    #[inline(always)]
    pub(super) fn ask_group(&mut self, weights: usize) {
        for line in 0..weights / 64 {
            self.ask_line(line);
        }
        self.end_group(weights);
    }
}

/// Rows of a head's cache, of whole lines, that are read one after the other, and what is read behind
/// them. They are asked for in the first cache, each line where a line is read.
pub(super) struct Rows {
    rows: *const u8,
    /// Bytes of all rows.
    len: usize,
    /// Bytes of a row.
    row: usize,
    behind: *const u8,
}

impl Rows {
    /// How far ahead, but no further than there are rows.
    const BYTES: usize = 8 << 10;

    /// Rows of so many bytes; nothing if this CPU needs not be asked.
    #[inline(always)]
    pub(super) fn new(rows: &[u8], row: usize, behind: &[i8]) -> Option<Self> {
        // Where there is nothing behind them, what is in the cache already is asked for.
        let behind = if behind.is_empty() { rows.as_ptr() } else { behind.as_ptr().cast() };
        is_needed().then_some(Self { rows: rows.as_ptr(), len: rows.len(), row, behind })
    }

    /// For a line of a row, where it is read.
    #[inline(always)]
    pub(super) fn ask_line(&self, row: usize, line: usize) {
        let at = row * self.row + Self::BYTES.min(self.len);
        let row = match at.checked_sub(self.len) {
            None => self.rows.wrapping_add(at),
            Some(at) => self.behind.wrapping_add(at),
        };
        prefetch_line(row.wrapping_add(64 * line));
    }
}

#[cfg(test)]
pub(in crate::kernels) mod tests {
    use core::cell::{Cell, RefCell};
    use core::ops::Range;
    use std::thread::LocalKey;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::format::Encoding;
    use crate::isa::Isa;
    use crate::kernels::{Columns, HeadCache, Kernels, Lhs, QuantLhs, conformance};
    use crate::memory::Line;
    use crate::quant::tile::GROUP;

    std::thread_local! {
        /// What this thread takes for the answer, whatever the CPU is.
        pub(super) static DECIDED: Cell<Option<Way>> = const { Cell::new(None) };
        /// Lines that this thread asked for, by their numbers in memory, in the first and in the second cache.
        static ASKED: RefCell<[Vec<usize>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
    }

    /// Runs a test as on a CPU that is asked in this way.
    pub(in crate::kernels) fn decided(way: Way, test: impl FnOnce()) {
        with_answer(&DECIDED, way, test);
    }

    /// Runs a test while this thread has such an answer, which it loses at the end, also if the test fails.
    pub(in crate::kernels::x86_64) fn with_answer<T: 'static>(
        decided: &'static LocalKey<Cell<Option<T>>>,
        answer: T,
        test: impl FnOnce(),
    ) {
        struct Undecided<T: 'static>(&'static LocalKey<Cell<Option<T>>>);
        impl<T> Drop for Undecided<T> {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }
        let _at_the_end = Undecided(decided);
        decided.set(Some(answer));
        test();
    }

    pub(in crate::kernels) fn note(address: *const u8) {
        note_in(0, address);
    }

    pub(in crate::kernels) fn note_second(address: *const u8) {
        note_in(1, address);
    }

    fn note_in(cache: usize, address: *const u8) {
        if DECIDED.get().is_some() {
            ASKED.with_borrow_mut(|asked| asked[cache].push(address.addr() / 64));
        }
    }

    /// The lines that a test asks for within `places`, one after the other, in the first and in the second cache.
    fn asked(way: Way, places: &[Range<usize>], test: impl FnOnce()) -> [Vec<usize>; 2] {
        ASKED.take();
        decided(way, test);
        let mut asked = ASKED.take();
        for asked in &mut asked {
            asked.retain(|line| places.iter().any(|place| place.contains(&(line * 64))));
            asked.dedup();
        }
        asked
    }

    fn lines_of(places: &[Range<usize>]) -> Vec<usize> {
        places.iter().flat_map(|place| place.start / 64..place.end / 64).collect()
    }

    fn place(of: &[Line]) -> Range<usize> {
        let bytes: &[u8] = bytemuck::cast_slice(of);
        bytes.as_ptr().addr()..bytes.as_ptr().addr() + bytes.len()
    }

    /// The sets that ask.
    fn sets() -> impl Iterator<Item = Kernels> {
        conformance::sets().into_iter().filter(|set| set.isa() != Isa::Scalar)
    }

    #[test]
    fn products_ask_for_every_line_of_records_in_order() {
        const RECORDS: usize = 3;
        for set in sets() {
            let encodings = [
                (Encoding::Q8, tile::Q8_GROUP_BYTES),
                (Encoding::Q4, tile::Q4_GROUP_BYTES),
                (Encoding::Q3, tile::Q3_GROUP_BYTES),
            ];
            for (encoding, group_bytes) in encodings {
                for groups in [1, 2, 3, 4, 5, 24, 33] {
                    let len = tile::record_len(encoding, groups * GROUP);
                    let records = vec![Line::ZERO; RECORDS * len / 64];
                    let (q, scales) = (vec![1; groups * GROUP], vec![1.0; groups]);
                    let (sums, mut out) = (vec![32; groups], vec![0.0; RECORDS * ROWS]);
                    let q = QuantLhs { q: &q, scales: &scales, sums: &sums, m: 1, groups };
                    let Range { start, end } = place(&records);
                    let (ahead, anywhere) = (start + BYTES..end + BYTES, 0..usize::MAX);
                    let ahead = lines_of(&[ahead]);
                    let group_len = ROWS + group_bytes;
                    let near = (0..RECORDS).flat_map(|record| {
                        let groups = (0..groups).map(|g| tile::ROW_SCALES_BYTES + g * group_len);
                        let begins = [0].into_iter().chain(groups);
                        begins.map(move |begin| (start + record * len + begin + NEAR_BYTES) / 64)
                    });
                    let mut near: Vec<usize> = near.collect();
                    near.dedup();
                    let mut asked = |way| {
                        asked(way, core::slice::from_ref(&anywhere), || {
                            let dst = &mut Columns::new(&mut out, RECORDS * ROWS);
                            let records = bytemuck::cast_slice(&records);
                            set.matmul(&Lhs::Quant(q), encoding, records, dst);
                        })
                    };
                    let [first, second] = asked(Way::First);
                    assert_eq!(first, ahead, "{set:?} {encoding:?} {groups}");
                    assert_eq!(second, [], "{set:?} {encoding:?} {groups}");
                    let [first, second] = asked(Way::Second);
                    assert_eq!(first, near, "{set:?} {encoding:?} {groups}");
                    assert_eq!(second, ahead, "{set:?} {encoding:?} {groups}");
                }
            }
        }
    }

    #[test]
    fn many_tokens_ask_for_every_line_of_the_next_weights() {
        let cases = [(Isa::Amx, [16, 32, 48, 64]), (Isa::Avx2, [24, 30, 31, 72])];
        for (set, ms) in cases {
            let Some(set) = Kernels::for_isa(set) else { continue };
            for encoding in [Encoding::Q8, Encoding::Q4, Encoding::Q3] {
                for m in ms {
                    assert_next_weights_are_asked_for(set, encoding, m, Way::First);
                    // With AVX2 on other CPUs as well.
                    if set.isa() == Isa::Avx2 {
                        assert_next_weights_are_asked_for(set, encoding, m, Way::Never);
                    }
                }
            }
        }
    }

    fn assert_next_weights_are_asked_for(set: Kernels, encoding: Encoding, m: usize, way: Way) {
        const GROUPS: usize = 24;
        const RECORDS: usize = 3;
        let len = tile::record_len(encoding, GROUPS * GROUP);
        let records = vec![Line::ZERO; RECORDS * len / 64];
        let (q, scales) = (vec![1; m * GROUPS * GROUP], vec![1.0; m * GROUPS]);
        let (sums, mut out) = (vec![32; m * GROUPS], vec![0.0; m * RECORDS * ROWS]);
        let q = QuantLhs { q: &q, scales: &scales, sums: &sums, m, groups: GROUPS };
        let start = place(&records).start;
        // Behind the last record comes the first one.
        let weights = [0, 1, 2].map(|record| {
            start + record * len + tile::weights_offset(GROUPS)..start + (record + 1) * len
        });
        let [mut asked, _] = asked(way, &weights, || {
            let dst = &mut Columns::new(&mut out, RECORDS * ROWS);
            set.matmul(&Lhs::Quant(q), encoding, bytemuck::cast_slice(&records), dst);
        });
        asked.sort_unstable();
        let set = set.isa();
        assert_eq!(asked, lines_of(&weights), "{set:?}, {encoding:?}, {m} tokens");
    }

    #[test]
    fn attention_asks_for_a_head_and_for_what_is_behind_it() {
        const HD: usize = 64;
        const SLOTS: usize = 320;
        let part = || vec![Line::ZERO; SLOTS * HD / 64];
        let (keys, values, next) = (part(), part(), part());
        let scales = vec![0.0; SLOTS];
        let head = |keys, values| HeadCache::Q8 {
            keys: bytemuck::cast_slice(keys),
            key_scales: &scales,
            values: bytemuck::cast_slice(values),
            value_scales: &scales,
        };
        let (cache, next_cache) = (head(&keys[..], &values[..]), head(&next[..], &next[..]));
        for set in sets() {
            for used in [16, 112, 128, 144, SLOTS] {
                // What is asked for while so many slots of `now` are read.
                let ahead = |now: &[Line], behind: &[Line]| {
                    let (now, behind) = (place(now).start, place(behind).start);
                    let distance = Rows::BYTES.min(used * HD);
                    lines_of(&[now + distance..now + used * HD, behind..behind + distance])
                };
                let places = [place(&keys), place(&values), place(&next)];
                let [lines, _] = asked(Way::First, &places, || {
                    set.scores_q8(&[1; HD], &cache, &[1.0], &mut vec![0.0; used]);
                });
                assert_eq!(lines, ahead(&keys, &values), "{set:?}, scores of {used}");
                let (mut high, mut low) = (vec![0; used], vec![0; used]);
                let [lines, _] = asked(Way::First, &places, || {
                    let halves = (&mut high[..], &mut low[..]);
                    let weights = vec![1.0; used];
                    set.values_q8(&weights, &cache, 1.0, halves, Some(&next_cache), &mut [0.0; HD]);
                });
                assert_eq!(lines, ahead(&values, &next), "{set:?}, values of {used}");
            }
        }
    }

    #[test]
    fn who_is_asked_in_which_way() {
        let cpus: [(&[u8], u32, u32, Way); 7] = [
            // Zen 5 (9005), Zen 4 (9004), Zen 3 (7003).
            (b"AuthenticAMD", 0x00b0_0f21, 0, Way::First),
            (b"AuthenticAMD", 0x00a1_0f11, 1 << 23, Way::Never),
            (b"AuthenticAMD", 0x00a0_0f11, 0, Way::Never),
            // Sapphire Rapids; any other; nobody's.
            (b"GenuineIntel", 0x0008_06f8, 1 << 23, Way::Second),
            (b"GenuineIntel", 0x0006_06a6, !(1 << 23), Way::Never),
            (b"GenuineIntel", 0x00b0_0f21, 0, Way::Never),
            (b"CentaurHauls", 0x00b0_0f21, 1 << 23, Way::Never),
        ];
        for (vendor, signature, extended, way) in cpus {
            assert_eq!(way_of(vendor, signature, extended), way, "{signature:x}");
        }
        let families = cpus.map(|(_, signature, _, _)| family(signature));
        assert_eq!(families[..5], [0x1a, 0x19, 0x19, 6, 6]);
    }

    /// The bit that the standard library finds for itself.
    #[test]
    #[cfg(not(miri))]
    fn this_cpu_is_asked_for_the_right_bit() {
        let intel = __cpuid(0).ebx == u32::from_le_bytes(*b"Genu");
        if intel {
            assert_eq!(way_here() == Way::Second, std::is_x86_feature_detected!("avx512fp16"));
        }
    }

    #[test]
    fn the_cpu_is_asked_once() {
        for (ask, expected) in [((|| 2) as fn() -> u8, 2), (|| 0, 0)] {
            let answer = Answer::unknown();
            assert_eq!(answer.get(ask), expected);
            assert_eq!(answer.get(|| panic!("asked twice")), expected);
        }
    }
}
