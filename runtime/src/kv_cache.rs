//! Keys and values of past positions, a ring over caller storage.

use core::fmt;
use core::str::FromStr;

use crate::config::Gpt2Config;
use crate::kernels::{HeadCache, Kernels, scalar};
use crate::memory::Line;
use crate::quant::tile::ROWS;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// f32
    F32,
    /// f16
    F16,
    /// int8 with one scale per head vector; attention works in integers.
    Q8,
}

impl KvType {
    /// Name for `--kv` and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8 => 1,
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KvType {
    type Err = UnknownKvType;

    fn from_str(name: &str) -> Result<Self, UnknownKvType> {
        [Self::F32, Self::F16, Self::Q8]
            .into_iter()
            .find(|kv| kv.name() == name)
            .ok_or(UnknownKvType)
    }
}

/// A name that is no cache type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownKvType;

impl fmt::Display for UnknownKvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown cache type, expected f32, f16 or q8")
    }
}

impl core::error::Error for UnknownKvType {}

/// Sizes of a cache: per layer and head keys, values, and in q8 their scales.
///
/// Keys lie in tiles of 16 slots, as weights do in tiles of 16 rows, so that a score is a row of a
/// matrix product; values lie so that dimensions are in lanes. See [`HeadCache`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct KvLayout {
    kv: KvType,
    heads: usize,
    layers: usize,
    /// Head size of the model.
    head_dim: usize,
    /// Head size rounded up to a multiple of 16.
    hd: usize,
    /// Slots rounded up to a multiple of 64.
    slots: usize,
}

impl KvLayout {
    pub(crate) fn new(config: &Gpt2Config, kv: KvType, window: usize) -> Self {
        Self {
            kv,
            heads: config.n_head as usize,
            layers: config.n_layer as usize,
            head_dim: config.head_dim(),
            hd: config.head_dim().next_multiple_of(16),
            slots: window.next_multiple_of(64),
        }
    }

    pub(crate) fn kv(&self) -> KvType {
        self.kv
    }

    pub(crate) fn padded_head_dim(&self) -> usize {
        self.hd
    }

    pub(crate) fn padded_slots(&self) -> usize {
        self.slots
    }

    /// Bytes of keys, and of values, of one head.
    const fn vectors_len(&self) -> usize {
        self.slots * self.hd * self.kv.width()
    }

    const fn scales_len(&self) -> usize {
        match self.kv {
            KvType::Q8 => 4 * self.slots,
            _ => 0,
        }
    }

    /// Lines of one head of one layer.
    pub(crate) const fn head_lines(&self) -> usize {
        Line::count_for(2 * self.vectors_len() + 2 * self.scales_len())
    }

    /// Lines of one layer.
    pub(crate) const fn layer_lines(&self) -> usize {
        self.heads * self.head_lines()
    }

    /// Lines of the whole cache; `None` on overflow.
    pub(crate) fn lines(&self) -> Option<usize> {
        let bytes = self.slots.checked_mul(self.hd * self.kv.width() * 2 + 8)?;
        Line::count_for(bytes).checked_mul(self.heads * self.layers)?;
        Some(self.layers * self.layer_lines())
    }

    /// A view of one head's lines.
    pub(crate) fn view<'a>(&self, head: &'a [Line]) -> HeadCache<'a> {
        let bytes: &[u8] = bytemuck::cast_slice(head);
        let (keys, rest) = bytes.split_at(self.vectors_len());
        let (values, rest) = rest.split_at(self.vectors_len());
        match self.kv {
            KvType::F32 => HeadCache::F32 {
                keys: bytemuck::cast_slice(keys),
                values: bytemuck::cast_slice(values),
            },
            KvType::F16 => HeadCache::F16 {
                keys: bytemuck::cast_slice(keys),
                values: bytemuck::cast_slice(values),
            },
            KvType::Q8 => {
                let (key_scales, rest) = rest.split_at(self.scales_len());
                HeadCache::Q8 {
                    keys: bytemuck::cast_slice(keys),
                    key_scales: bytemuck::cast_slice(key_scales),
                    values: bytemuck::cast_slice(values),
                    value_scales: bytemuck::cast_slice(&rest[..self.scales_len()]),
                }
            }
        }
    }

    /// Copies the key and value of one slot of a head to another slot.
    pub(crate) fn copy(&self, head: &mut [Line], from: usize, to: usize) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(head);
        self.parts(from, to, |from, to, len| bytes.copy_within(from..from + len, to));
    }

    /// Copies the key and value of one slot of a head to the same slot of another head.
    pub(crate) fn copy_across(&self, source: &[Line], head: &mut [Line], slot: usize) {
        let source: &[u8] = bytemuck::cast_slice(source);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(head);
        self.parts(slot, slot, |from, to, len| {
            bytes[to..to + len].copy_from_slice(&source[from..from + len]);
        });
    }

    /// Bytes of the key, the value and the scales of one slot of a head.
    pub(crate) const fn head_slot_bytes(&self) -> usize {
        let scales = if matches!(self.kv, KvType::Q8) { 8 } else { 0 };
        2 * self.hd * self.kv.width() + scales
    }

    /// The same of all heads and layers.
    pub(crate) const fn slot_bytes(&self) -> usize {
        self.layers * self.heads * self.head_slot_bytes()
    }

    /// The key, the value and the scales of one slot of a head, one behind the other.
    pub(crate) fn gather<'b>(&self, head: &[Line], slot: usize, buffer: &'b mut [u8]) -> &'b [u8] {
        let bytes: &[u8] = bytemuck::cast_slice(head);
        let mut end = 0;
        self.parts(slot, slot, |at, _, len| {
            buffer[end..end + len].copy_from_slice(&bytes[at..at + len]);
            end += len;
        });
        &buffer[..end]
    }

    /// The reverse of [`KvLayout::gather`].
    pub(crate) fn scatter(&self, numbers: &[u8], head: &mut [Line], slot: usize) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(head);
        let mut end = 0;
        self.parts(slot, slot, |at, _, len| {
            bytes[at..at + len].copy_from_slice(&numbers[end..end + len]);
            end += len;
        });
    }

    /// Where the bytes of two slots of a head lie: `each(in one, in the other, how many)`.
    fn parts(&self, one: usize, other: usize, mut each: impl FnMut(usize, usize, usize)) {
        let hd = self.hd;
        let (values, scales) = (self.vectors_len(), 2 * self.vectors_len());
        // Numbers that lie together, and how many numbers it is to the next in the same slot.
        let (width, together) = match self.kv {
            KvType::Q8 => (1, 4),
            kv => (kv.width(), 1),
        };
        let tile = |slot: usize| slot / ROWS * (hd * ROWS) + slot % ROWS * together;
        for d in (0..hd).step_by(together) {
            let at = |slot| (tile(slot) + d * ROWS) * width;
            each(at(one), at(other), width * together);
        }
        if self.kv == KvType::Q8 {
            let at = |slot: usize, d: usize| values + slot / 4 * (hd * 4) + d * 4 + slot % 4;
            (0..hd).for_each(|d| each(at(one, d), at(other, d), 1));
            for kind in 0..2 {
                let at = |slot: usize| scales + kind * self.scales_len() + 4 * slot;
                each(at(one), at(other), 4);
            }
        } else {
            let row = hd * width;
            each(values + one * row, values + other * row, row);
        }
    }

    /// Writes the key and value of one slot of a head. `key` and `value` have the model's head
    /// size; `quantized` is scratch for one padded head vector. Padding is written as zero: the
    /// caller's memory may hold anything.
    pub(crate) fn store(
        &self,
        kernels: &Kernels,
        head: &mut [Line],
        slot: usize,
        (key, value): (&[f32], &[f32]),
        quantized: &mut [i8],
    ) {
        debug_assert!(slot < self.slots && key.len() == self.head_dim);
        let hd = self.hd;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(head);
        let (keys, rest) = bytes.split_at_mut(self.vectors_len());
        let (values, rest) = rest.split_at_mut(self.vectors_len());
        let key_at = |d: usize| slot / ROWS * (hd * ROWS) + d * ROWS + slot % ROWS;
        match self.kv {
            KvType::F32 => {
                let (keys, values): (&mut [f32], &mut [f32]) =
                    (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
                for d in 0..hd {
                    keys[key_at(d)] = key.get(d).copied().unwrap_or(0.0);
                }
                let (row, padding) = values[slot * hd..][..hd].split_at_mut(value.len());
                row.copy_from_slice(value);
                padding.fill(0.0);
            }
            KvType::F16 => {
                let (keys, values): (&mut [u16], &mut [u16]) =
                    (bytemuck::cast_slice_mut(keys), bytemuck::cast_slice_mut(values));
                let f16 = |x: &[f32], d: usize| x.get(d).map_or(0, |&x| scalar::f32_to_f16(x));
                for d in 0..hd {
                    keys[key_at(d)] = f16(key, d);
                    values[slot * hd + d] = f16(value, d);
                }
            }
            KvType::Q8 => {
                let (key_scales, rest) = rest.split_at_mut(self.scales_len());
                let key_scales: &mut [f32] = bytemuck::cast_slice_mut(key_scales);
                let value_scales: &mut [f32] =
                    bytemuck::cast_slice_mut(&mut rest[..self.scales_len()]);
                let quantized = &mut quantized[..hd];
                kernels.quantize(key, hd, quantized, &mut key_scales[slot..=slot], &mut [0]);
                let tile = &mut keys[slot / ROWS * (hd * ROWS)..][..hd * ROWS];
                // Four dimensions of all slots of a tile lie together.
                let fours: &[[u8; 4]] = bytemuck::cast_slice(&*quantized);
                for (slots, four) in tile.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().zip(fours) {
                    slots.as_chunks_mut().0[slot % ROWS] = *four;
                }
                kernels.quantize(value, hd, quantized, &mut value_scales[slot..=slot], &mut [0]);
                let row = &mut values[slot / 4 * (hd * 4)..][..hd * 4];
                for (four, &q) in row.as_chunks_mut::<4>().0.iter_mut().zip(&*quantized) {
                    four[slot % 4] = q as u8;
                }
            }
        }
    }

    /// Writes keys and values of four neighbouring slots, the first of which is a multiple of four,
    /// as [`KvLayout::store`] does, in a cache that is q8: sixteen bytes of keys and of values are
    /// written together. `quantized` is scratch for four padded head vectors.
    pub(crate) fn store_four(
        &self,
        kernels: &Kernels,
        head: &mut [Line],
        slot: usize,
        [keys, values]: [[&[f32]; 4]; 2],
        quantized: &mut [i8],
    ) {
        debug_assert!(self.kv == KvType::Q8 && slot.is_multiple_of(4) && slot + 4 <= self.slots);
        let hd = self.hd;
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(head);
        let (key_bytes, rest) = bytes.split_at_mut(self.vectors_len());
        let (value_bytes, rest) = rest.split_at_mut(self.vectors_len());
        let (key_scales, rest) = rest.split_at_mut(self.scales_len());
        let key_scales: &mut [f32] = bytemuck::cast_slice_mut(key_scales);
        let value_scales: &mut [f32] = bytemuck::cast_slice_mut(&mut rest[..self.scales_len()]);
        let quantized = &mut quantized[..4 * hd];

        for ((key, q), scale) in
            keys.iter().zip(quantized.chunks_exact_mut(hd)).zip(&mut key_scales[slot..slot + 4])
        {
            kernels.quantize(key, hd, q, core::slice::from_mut(scale), &mut [0]);
        }
        let tile = &mut key_bytes[slot / ROWS * (hd * ROWS)..][..hd * ROWS];
        let [a, b, c, d] = four_parts::<[u8; 4]>(bytemuck::cast_slice(quantized));
        let quads = a.iter().zip(b).zip(c.iter().zip(d));
        for (slots, ((a, b), (c, d))) in
            tile.as_chunks_mut::<{ 4 * ROWS }>().0.iter_mut().zip(quads)
        {
            let slots: &mut [[[u8; 4]; 4]; ROWS / 4] = bytemuck::cast_mut(slots);
            slots[slot % ROWS / 4] = [*a, *b, *c, *d];
        }

        for ((value, q), scale) in
            values.iter().zip(quantized.chunks_exact_mut(hd)).zip(&mut value_scales[slot..slot + 4])
        {
            kernels.quantize(value, hd, q, core::slice::from_mut(scale), &mut [0]);
        }
        let row = &mut value_bytes[slot * hd..][..hd * 4];
        let [a, b, c, d] = four_parts::<u8>(bytemuck::cast_slice(quantized));
        let dimensions = a.iter().zip(b).zip(c.iter().zip(d));
        for (slots, ((a, b), (c, d))) in row.as_chunks_mut::<4>().0.iter_mut().zip(dimensions) {
            *slots = [*a, *b, *c, *d];
        }
    }
}

/// Four vectors that lie one behind the other.
fn four_parts<T>(all: &[T]) -> [&[T]; 4] {
    let (first, last) = all.split_at(all.len() / 2);
    let ((a, b), (c, d)) = (first.split_at(first.len() / 2), last.split_at(last.len() / 2));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn four_slots_at_once_are_as_one_by_one() {
        for head_dim in [32, 40, 64] {
            let hd = usize::next_multiple_of(head_dim, 16);
            let layout = KvLayout { kv: KvType::Q8, heads: 1, layers: 1, head_dim, hd, slots: 64 };
            let number = |i: usize| ((i * 37 + i * i * 11) % 199) as f32 - 99.0;
            let vectors: Vec<f32> = (0..8 * head_dim).map(number).collect();
            let vectors: Vec<&[f32]> = vectors.chunks_exact(head_dim).collect();
            let (keys, values) =
                (vectors[..4].try_into().unwrap(), vectors[4..].try_into().unwrap());
            let kernels = Kernels::best();
            let mut quantized = vec![99; 4 * hd];
            for first in [0, 4, 12, 16, 60] {
                // Full of ones: what is not stored stays.
                let mut lines = vec![Line::ZERO; layout.head_lines()];
                bytemuck::cast_slice_mut::<_, u8>(&mut lines).fill(0xff);
                let mut spec = lines.clone();
                layout.store_four(&kernels, &mut lines, first, [keys, values], &mut quantized);
                for i in 0..4 {
                    let pair = (keys[i], values[i]);
                    layout.store(&kernels, &mut spec, first + i, pair, &mut quantized);
                }
                let bytes = |lines: &[Line]| bytemuck::cast_slice::<_, u8>(lines).to_vec();
                assert!(bytes(&lines) == bytes(&spec), "slots from {first} on, {head_dim} numbers");
            }
        }
    }
}
