//! The printable alphabet in which GPT-2's vocabulary files write bytes.
//!
//! A byte that is printable in Latin-1 stands for itself; the 68 others (controls, space, DEL,
//! no-break space, soft hyphen) are written, in ascending order, as U+0100 to U+0143. A section
//! holds raw bytes, so this is needed only where vocabulary files are read or tokens are printed.

/// Number of bytes that do not stand for themselves.
const SHIFTED: usize = 68;

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The bytes written as U+0100, U+0101, …
const SHIFTED_BYTES: [u8; SHIFTED] = {
    let mut table = [0; SHIFTED];
    let (mut byte, mut len) = (0, 0);
    while byte < 256 {
        if !stands_for_itself(byte as u8) {
            table[len] = byte as u8;
            len += 1;
        }
        byte += 1;
    }
    table
};

/// The character that writes `byte` in `vocab.json` and `merges.txt` (a space is `Ġ`).
pub fn byte_to_char(byte: u8) -> char {
    if stands_for_itself(byte) {
        return char::from(byte);
    }
    // The table holds every other byte in ascending order, so the search always succeeds.
    let index = SHIFTED_BYTES.partition_point(|&shifted| shifted < byte);
    char::from_u32(0x100 + index as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that `c` writes, or `None` for a character outside the alphabet.
pub fn char_to_byte(c: char) -> Option<u8> {
    match u8::try_from(c) {
        Ok(byte) => stands_for_itself(byte).then_some(byte),
        Err(_) => SHIFTED_BYTES.get(c as usize - 0x100).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters() {
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(byte_to_char(b'!'), '!');
        assert_eq!(byte_to_char(0xad), '\u{143}');
        assert_eq!(char_to_byte('\u{144}'), None);
        assert_eq!(char_to_byte(' '), None);
        assert_eq!(char_to_byte('日'), None);
    }

    #[test]
    fn alphabet_is_a_bijection() {
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        let inverse = (0..0x1000).filter_map(char::from_u32).filter_map(char_to_byte);
        assert_eq!(inverse.count(), 256);
    }
}
