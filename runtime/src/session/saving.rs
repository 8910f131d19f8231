//! Saving a session, and restoring it.

use super::Session;
use crate::kv_cache::{KvLayout, KvType};
use crate::memory::Line;
use crate::overflow::{Overflow, Progress};
use crate::saved::{Header, SavedError, SavedSession, SavedText};

/// # Saving
///
/// See [`crate::saved`]. Nothing is allocated in either direction.
impl Session<'_, '_> {
    /// Writes what [`SavedSession::new`] reads, in pieces: `write` is called for each in order.
    ///
    /// # Errors
    /// Those of `write`.
    ///
    /// # Panics
    /// If there are branches, or the text does not fit the session: it must have at least one
    /// token, those that were fed, the new ones among them, and not more metadata than allowed.
    pub fn save<E>(
        &self,
        text: &SavedText<'_>,
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let SavedText { tokens, new_tokens, seed, metadata } = *text;
        assert_eq!(self.buffers.branches.count(), 0, "the text is split into branches");
        assert!(tokens.len() >= self.progress.fed.max(1) && tokens.len() >= new_tokens);
        assert!(metadata.len() <= crate::saved::MAX_METADATA_LEN);

        let (model_len, model_crc) = self.model.file().identity();
        let header = Header {
            file_len: self.saved_len(text) as u64,
            model_len,
            model_crc,
            kv: self.layout.kv(),
            overflow: self.rules.overflow,
            window: self.window as u32,
            keep: self.rules.keep as u32,
            tail: self.rules.tail as u32,
            position: self.progress.position as u32,
            metadata_len: metadata.len() as u32,
            fed: self.progress.fed as u64,
            tokens: tokens.len() as u64,
            new_tokens: new_tokens as u64,
            seed,
        };
        write(&header.encode())?;
        let mut crc = crc32fast::Hasher::new();
        let mut add = |bytes: &[u8]| {
            crc.update(bytes);
            write(bytes)
        };
        for token in tokens {
            add(&token.to_le_bytes())?;
        }
        add(metadata.as_bytes())?;
        for (cache, slots) in self.caches().into_iter().zip(self.saved_slots()) {
            let mut buffer = [0; MAX_HEAD_SLOT];
            for head in cache.chunks_exact(self.layout.head_lines()) {
                for slot in 0..slots {
                    add(self.layout.gather(head, slot, &mut buffer))?;
                }
            }
        }
        write(&crc.finalize().to_le_bytes())
    }

    /// How many bytes [`Session::save`] writes.
    pub fn saved_len(&self, text: &SavedText<'_>) -> usize {
        let cache_len = self.saved_slots().iter().sum::<usize>() * self.layout.slot_bytes();
        crate::saved::HEADER_LEN + 4 * text.tokens.len() + text.metadata.len() + cache_len + 4
    }

    /// Takes up a saved session, whatever this one has read before.
    ///
    /// A text that was saved with [`Overflow::Stop`] can go on with [`Overflow::Refill`].
    ///
    /// # Errors
    /// If the session was made for another cache type, window, `keep`, policy or `tail`, or the cache
    /// has numbers that no token leaves. Then it is as if it had read nothing.
    ///
    /// # Panics
    /// If the saved session was proven with another model, or there are branches.
    pub fn restore(&mut self, saved: &SavedSession<'_>) -> Result<(), SavedError> {
        assert_eq!(self.buffers.branches.count(), 0, "the text is split into branches");
        let header = saved.header();
        assert_eq!((header.model_len, header.model_crc), self.model.file().identity());
        self.progress = Progress::default();
        self.check_options(header)?;
        let (fed, position) = (header.fed as usize, header.position as usize);
        let progress = Progress { fed, position, ..Progress::default() };
        self.progress = progress;
        let restored = self.fill_caches(saved);
        if restored.is_err() {
            self.progress = Progress::default();
            return restored;
        }
        if self.rules.overflow != Overflow::Stop {
            // What the context holds: the kept tokens and the last ones that were read.
            let behind = progress.dropped();
            for (position, token) in
                self.buffers.history[..progress.position].iter_mut().enumerate()
            {
                let at = if position < self.rules.keep { position } else { position + behind };
                *token = saved.token(at);
            }
        }
        Ok(())
    }

    fn check_options(&self, header: &Header) -> Result<(), SavedError> {
        let goes_on = header.overflow == Overflow::Stop && self.rules.overflow == Overflow::Refill;
        for (same, option) in [
            (header.kv == self.layout.kv(), "kv"),
            (header.window as usize == self.window, "window"),
            (header.keep as usize == self.rules.keep, "keep"),
            (goes_on || header.overflow == self.rules.overflow, "overflow"),
            (goes_on || header.tail as usize == self.rules.tail, "tail"),
        ] {
            if !same {
                return Err(SavedError::Differs { option });
            }
        }
        Ok(())
    }

    /// The cache in use and the shadow; the latter is empty where there is none.
    fn caches(&self) -> [&[Line]; 2] {
        let (live, [one, other]) = (self.progress.live, &self.buffers.caches);
        if live == 0 { [one, other] } else { [other, one] }
    }

    /// Slots of both that are in use.
    fn saved_slots(&self) -> [usize; 2] {
        let position = self.progress.position;
        [position, self.rules.shadow_positions(position)].map(|slots| slots.min(self.window))
    }

    fn fill_caches(&mut self, saved: &SavedSession<'_>) -> Result<(), SavedError> {
        let (slots, live) = (self.saved_slots(), self.progress.live);
        let (layout, heads) = (&self.layout, self.model.config().n_head as usize);
        let [one, other] = &mut self.buffers.caches;
        let caches = if live == 0 { [one, other] } else { [other, one] };
        for ((cache, slots), bytes) in caches.into_iter().zip(slots).zip(saved.caches()) {
            let mut numbers = bytes.chunks_exact(layout.head_slot_bytes());
            for (i, head) in cache.chunks_exact_mut(layout.head_lines()).enumerate() {
                for slot in 0..slots {
                    let numbers = numbers.next().expect("the length was proven");
                    if !plausible(layout, numbers) {
                        let (layer, slot) = ((i / heads) as u32, slot as u32);
                        return Err(SavedError::CacheNumber { layer, slot });
                    }
                    layout.scatter(numbers, head, slot);
                }
            }
        }
        Ok(())
    }
}

/// Most bytes of the key, the value and the scales of one head: 128 numbers each.
const MAX_HEAD_SLOT: usize = 2 * 128 * 4 + 8;

/// Whether a slot's numbers are such as a token leaves: finite, and int8 in ±127.
fn plausible(layout: &KvLayout, numbers: &[u8]) -> bool {
    let finite = |four: &[u8; 4]| f32::from_le_bytes(*four).is_finite();
    match layout.kv() {
        KvType::F32 => numbers.as_chunks().0.iter().all(finite),
        KvType::F16 => {
            let exponent = |two: &[u8; 2]| u16::from_le_bytes(*two) & 0x7c00;
            numbers.as_chunks().0.iter().all(|two| exponent(two) != 0x7c00)
        }
        KvType::Q8 => {
            let (vectors, scales) = numbers.split_at(numbers.len() - 8);
            vectors.iter().all(|&q| q != 0x80) && scales.as_chunks().0.iter().all(finite)
        }
    }
}
