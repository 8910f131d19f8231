//! Rules of the header, the section table and what is between the sections.

use pocketgpt_runtime::error::{FormatError, Section};
use pocketgpt_runtime::format::WeightFile;
use pocketgpt_runtime::tokenizer::TokenizerError;

use crate::tiny::{self, FileBytes, Parts, assemble, parts, seal, seal_header, u64_at};

/// The five sections with the place of their span in the header.
const SPANS: [(Section, usize); 5] = [
    (Section::Config, 16),
    (Section::Directory, 32),
    (Section::Tokenizer, 48),
    (Section::Metadata, 64),
    (Section::Data, 80),
];

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// The tiny file with an edited header, its CRC correct again.
fn with_header(edit: impl FnOnce(&mut [u8])) -> FileBytes {
    let mut file = tiny::file();
    edit(file.bytes_mut());
    seal_header(file.bytes_mut());
    file
}

#[test]
fn accepts_the_file_that_the_others_damage() {
    let file = tiny::file();
    file.open().unwrap().verify().unwrap();
    let ([config, directory, tokenizer, metadata], data) = parts(&file);
    let again = assemble([config, directory, tokenizer, metadata], data, tiny::TENSORS as u32);
    assert!(again.bytes() == file.bytes(), "two writers, one file");
}

#[test]
fn rejects_too_short() {
    let file = tiny::file();
    for len in [0, 1, 127] {
        let found = WeightFile::new(&file.bytes()[..len]).unwrap_err();
        assert_eq!(found, FormatError::TooShort { len: len as u64 });
    }
    // Nothing at all lies nowhere, so it is not at a multiple of 64 either.
    assert_eq!(WeightFile::new(&[]).unwrap_err(), FormatError::TooShort { len: 0 });
}

#[test]
fn rejects_bad_magic() {
    for at in 0..4 {
        assert_eq!(with_header(|b| b[at] ^= 0x20).refused(), FormatError::BadMagic);
    }
}

#[test]
fn rejects_other_versions() {
    for found in [0u32, 2, 0x0100_0000] {
        let file = with_header(|b| b[4..8].copy_from_slice(&found.to_le_bytes()));
        assert_eq!(file.refused(), FormatError::UnsupportedVersion { found });
    }
}

#[test]
fn rejects_header_crc() {
    for at in [8, 16, 100, 112, 124, 127] {
        let mut file = tiny::file();
        file.bytes_mut()[at] ^= 1;
        assert_eq!(file.refused(), FormatError::HeaderCrc);
    }
}

#[test]
fn rejects_reserved_bytes_of_the_header() {
    for at in 116..124 {
        let found = with_header(|b| b[at] = 1).refused();
        assert_eq!(found, FormatError::ReservedNotZero { section: Section::Header });
    }
}

#[test]
fn rejects_file_length() {
    let file = tiny::file();
    let expected = file.bytes().len() as u64;
    for found in [128, expected - 64, expected - 1, expected + 1, expected + 64] {
        let mut bytes = file.bytes().to_vec();
        bytes.resize(found as usize, 0);
        let error = FormatError::FileLength { expected, found };
        assert_eq!(FileBytes::new(&bytes).refused(), error);
    }
    for claimed in [0, expected + 1, u64::MAX] {
        let error = FormatError::FileLength { expected: claimed, found: expected };
        assert_eq!(with_header(|b| put_u64(b, 8, claimed)).refused(), error);
    }
}

#[test]
fn rejects_misaligned() {
    let file = tiny::file();
    for shift in [1, 4, 32, 63] {
        let mut bytes = vec![0; shift];
        bytes.extend_from_slice(file.bytes());
        let shifted = FileBytes::new(&bytes);
        let found = WeightFile::new(&shifted.bytes()[shift..]).unwrap_err();
        assert_eq!(found, FormatError::Misaligned);
    }
}

#[test]
fn rejects_section_offset() {
    let file = tiny::file();
    for (section, at) in SPANS {
        let offset = u64_at(file.bytes(), at);
        for wrong in [0, offset - 64, offset - 1, offset + 1, offset + 64, u64::MAX, 1 << 32] {
            let found = with_header(|b| put_u64(b, at, wrong)).refused();
            assert_eq!(found, FormatError::SectionOffset { section }, "offset {wrong}");
        }
    }
}

/// A length just below the overflow: the next section cannot be behind it.
#[test]
fn rejects_section_behind_the_end_of_numbers() {
    let file = tiny::file();
    for (i, (_, at)) in SPANS.into_iter().enumerate() {
        let len = u64::MAX - u64_at(file.bytes(), at);
        let found = with_header(|b| put_u64(b, at + 8, len)).refused();
        let expected = match SPANS.get(i + 1) {
            Some(&(section, _)) => FormatError::SectionOffset { section },
            None => {
                let expected = file.bytes().len() as u64;
                FormatError::DataLength { expected, found: u64::MAX }
            }
        };
        assert_eq!(found, expected);
    }
}

#[test]
fn rejects_section_overflow() {
    let file = tiny::file();
    for (section, at) in SPANS {
        for len in [u64::MAX - u64_at(file.bytes(), at) + 1, u64::MAX] {
            let found = with_header(|b| put_u64(b, at + 8, len)).refused();
            assert_eq!(found, FormatError::SectionOverflow { section });
        }
    }
}

#[test]
fn rejects_sections_that_overlap() {
    // The metadata reaches a line into the data, which begins on time.
    let file = tiny::file();
    let data = u64_at(file.bytes(), 80);
    let len = data + 64 - u64_at(file.bytes(), 64);
    let found = with_header(|b| put_u64(b, 72, len)).refused();
    assert_eq!(found, FormatError::SectionOffset { section: Section::Data });
}

#[test]
fn rejects_data_length() {
    let file = tiny::file();
    let expected = file.bytes().len() as u64;
    let data_len = u64_at(file.bytes(), 88);
    for change in [-4096, -64, -1, 1, 64] {
        let claimed = data_len.checked_add_signed(change).unwrap();
        let found = expected.checked_add_signed(change).unwrap();
        let file = with_header(|b| put_u64(b, 88, claimed));
        assert_eq!(file.refused(), FormatError::DataLength { expected, found });
    }
}

/// Header and bytes agree, and the directory asks for another length: one tensor's padding cut,
/// or a tail.
#[test]
fn rejects_tail_and_unpadded_end() {
    let file = tiny::file();
    let (sections, data) = parts(&file);
    let expected = file.bytes().len() as u64;
    for change in [-64isize, -1, 1, 64, 4096] {
        let mut data = data.to_vec();
        data.resize(data.len().checked_add_signed(change).unwrap(), 0);
        let file = assemble(sections, &data, tiny::TENSORS as u32);
        let found = expected.checked_add_signed(change as i64).unwrap();
        assert_eq!(file.refused(), FormatError::DataLength { expected, found });
    }
    let file = assemble(sections, &[], tiny::TENSORS as u32);
    let found = file.bytes().len() as u64;
    assert_eq!(file.refused(), FormatError::DataLength { expected, found });
}

/// Config and directory are whole lines, so only tokenizer and metadata have zeros behind them.
#[test]
fn rejects_padding_not_zero() {
    let mut config = tiny::config();
    config.vocab_size = 300;
    let whole = Parts { config, tokenizer: tiny::tokenizer(), ..Parts::default() };
    let whole = whole.build(|role, _| tiny::encoding(role));
    whole.open().unwrap().verify().unwrap();
    for (section, before, behind) in [(Section::Metadata, 48, 64), (Section::Data, 64, 80)] {
        let bytes = whole.bytes();
        let first = (u64_at(bytes, before) + u64_at(bytes, before + 8)) as usize;
        let end = u64_at(bytes, behind) as usize;
        assert!(first < end, "the file has such padding");
        for at in first..end {
            let mut file = whole.clone();
            file.bytes_mut()[at] = 0x80;
            assert_eq!(file.refused(), FormatError::PaddingNotZero { section });
        }
    }
}

#[test]
fn rejects_section_crc_at_open() {
    for (section, at) in [(Section::Config, tiny::CONFIG), (Section::Directory, tiny::DIRECTORY)] {
        let mut file = tiny::file();
        file.bytes_mut()[at] ^= 1;
        assert_eq!(file.refused(), FormatError::SectionCrc { section });
    }
}

/// Tokenizer and metadata may be megabytes, so their CRCs are a matter of `verify`.
#[test]
fn rejects_section_crc_by_verify() {
    let mut config = tiny::config();
    config.vocab_size = 300;
    let parts = Parts { config, tokenizer: tiny::tokenizer(), ..Parts::default() };
    let whole = parts.build(|role, _| tiny::encoding(role));
    for (section, at) in [(Section::Tokenizer, 48), (Section::Metadata, 64)] {
        let mut file = whole.clone();
        let last = u64_at(file.bytes(), at) + u64_at(file.bytes(), at + 8) - 1;
        file.bytes_mut()[last as usize] ^= 1;
        assert_eq!(file.refused_by_verify(), FormatError::SectionCrc { section });
    }
}

#[test]
fn rejects_metadata_not_utf8() {
    let mut file = tiny::file();
    let at = u64_at(file.bytes(), 64) as usize;
    file.bytes_mut()[at] = 0xff;
    seal(file.bytes_mut(), 3);
    assert_eq!(file.refused_by_verify(), FormatError::MetadataNotUtf8);
    assert_eq!(file.open().unwrap().metadata(), Err(FormatError::MetadataNotUtf8));
}

/// The tiny file with these bytes as its tokenizer.
fn with_tokenizer(tokenizer: Vec<u8>, vocab_size: u32) -> FileBytes {
    let mut config = tiny::config();
    config.vocab_size = vocab_size;
    Parts { config, tokenizer, ..Parts::default() }.build(|role, _| tiny::encoding(role))
}

#[test]
fn rejects_tokenizer_at_open() {
    let whole = tiny::tokenizer();
    for len in [1, 63] {
        let found = with_tokenizer(whole[..len].to_vec(), 300).refused();
        assert_eq!(found, FormatError::Tokenizer(TokenizerError::Truncated { len }));
    }
    let edited = |at: usize, value: u8| {
        let mut tokenizer = whole.clone();
        tokenizer[at] = value;
        with_tokenizer(tokenizer, 300).refused()
    };
    let tokenizer = FormatError::Tokenizer;
    assert_eq!(edited(0, 2), tokenizer(TokenizerError::Version(2)));
    assert_eq!(edited(2, 2), tokenizer(TokenizerError::Kind(2)));
    assert_eq!(edited(4, 2), tokenizer(TokenizerError::Flags(2)));
    assert_eq!(edited(63, 1), tokenizer(TokenizerError::Reserved));
    // Counts whose tables would be gigabytes: the sum is made in 64 bits.
    let counts = [0xff; 4];
    for (at, error) in [
        (8, TokenizerError::TokenCount(u32::MAX)),
        (12, TokenizerError::MergeCount(u32::MAX)),
        (16, TokenizerError::AddedCount(u32::MAX)),
        (
            20,
            TokenizerError::Length {
                expected: whole.len() as u64 - u64::from(whole[20]) - u64::from(whole[21]) * 256
                    + u64::from(u32::MAX),
                found: whole.len(),
            },
        ),
    ] {
        let mut section = whole.clone();
        section[at..at + 4].copy_from_slice(&counts);
        assert_eq!(with_tokenizer(section, 300).refused(), tokenizer(error));
    }
}

#[test]
fn rejects_tokenizer_by_verify() {
    let mut tokenizer = tiny::tokenizer();
    tokenizer[64] ^= 1;
    let found = with_tokenizer(tokenizer, 300).refused_by_verify();
    assert_eq!(found, FormatError::Tokenizer(TokenizerError::ByteId(0)));
}

#[test]
fn rejects_tokenizer_larger_than_the_vocabulary() {
    with_tokenizer(tiny::tokenizer(), 261).open().unwrap().verify().unwrap();
    let found = with_tokenizer(tiny::tokenizer(), 260).refused();
    assert_eq!(found, FormatError::TokenizerTooLarge { found: 261, vocab_size: 260 });
}
