//! Rules of the directory: everything but encoding and CRC follows from the config.

use pocketgpt_runtime::error::FormatError;
use pocketgpt_runtime::format::tensor::ENTRY_LEN;

use crate::tiny::{
    self, C_ATTN, C_ATTN_BIAS, C_FC, DIRECTORY, FileBytes, LM_HEAD, LN_1_WEIGHT, TENSORS, WPE, WTE,
    assemble, parts, seal, seal_header, u64_at,
};

/// The tiny file with an edited directory entry, CRCs correct again.
fn with_entry(tensor: usize, edit: impl FnOnce(&mut [u8])) -> FileBytes {
    let mut file = tiny::file();
    edit(&mut file.bytes_mut()[DIRECTORY + tensor * ENTRY_LEN..][..ENTRY_LEN]);
    seal(file.bytes_mut(), 1);
    file
}

/// The same with one field replaced.
fn refused(tensor: usize, at: usize, field: &[u8]) -> FormatError {
    with_entry(tensor, |entry| entry[at..at + field.len()].copy_from_slice(field)).refused()
}

#[test]
fn rejects_tensor_count() {
    for found in [0, 16, 18, u32::MAX] {
        let mut file = tiny::file();
        file.bytes_mut()[112..116].copy_from_slice(&found.to_le_bytes());
        seal_header(file.bytes_mut());
        assert_eq!(file.refused(), FormatError::TensorCount { expected: 17, found });
    }
}

/// A head that is tied and stored: the config asks for one tensor less.
#[test]
fn rejects_a_tensor_too_many() {
    let mut file = tiny::file();
    file.bytes_mut()[tiny::CONFIG + 28] |= 4;
    seal(file.bytes_mut(), 0);
    assert_eq!(file.refused(), FormatError::TensorCount { expected: 16, found: 17 });
}

#[test]
fn rejects_directory_length() {
    let file = tiny::file();
    let ([config, directory, tokenizer, metadata], data) = parts(&file);
    let longer = [directory, directory].concat();
    for len in [0, 64, 17 * 64 - 1, 17 * 64 + 1, 18 * 64] {
        let file = assemble([config, &longer[..len], tokenizer, metadata], data, 17);
        let error = FormatError::DirectoryLength { expected: 17 * 64, found: len as u64 };
        assert_eq!(file.refused(), error);
    }
}

#[test]
fn rejects_tensor_order() {
    for tensor in [WTE, C_ATTN, LM_HEAD] {
        let error = FormatError::TensorOrder { tensor: tensor as u32 };
        // Another role that exists, one that does not, and another layer.
        assert_eq!(refused(tensor, 0, &[3, 0]), error);
        assert_eq!(refused(tensor, 0, &[5, 0]), error);
        assert_eq!(refused(tensor, 0, &[0xff, 0xff]), error);
        assert_eq!(refused(tensor, 2, &[1, 0]), error);
    }
    // `ln_1`'s weight and bias: alike but for the role.
    let mut file = tiny::file();
    let entry = |i: usize| DIRECTORY + i * ENTRY_LEN..DIRECTORY + (i + 1) * ENTRY_LEN;
    let weight = file.bytes()[entry(LN_1_WEIGHT)].to_vec();
    file.bytes_mut().copy_within(entry(LN_1_WEIGHT + 1), entry(LN_1_WEIGHT).start);
    file.bytes_mut()[entry(LN_1_WEIGHT + 1)].copy_from_slice(&weight);
    seal(file.bytes_mut(), 1);
    assert_eq!(file.refused(), FormatError::TensorOrder { tensor: LN_1_WEIGHT as u32 });
}

#[test]
fn rejects_unknown_encoding() {
    for code in [5, 6, 255] {
        let error = FormatError::UnknownEncoding { tensor: C_ATTN as u32, code };
        assert_eq!(refused(C_ATTN, 4, &[code]), error);
    }
}

#[test]
fn rejects_unknown_packing() {
    for code in [2, 255] {
        let error = FormatError::UnknownPacking { tensor: C_ATTN as u32, code };
        assert_eq!(refused(C_ATTN, 5, &[code]), error);
    }
}

#[test]
fn rejects_encoding_not_allowed() {
    for (tensor, code) in
        [(LN_1_WEIGHT, 1), (LN_1_WEIGHT, 2), (C_ATTN_BIAS, 1), (C_ATTN_BIAS, 3), (WPE, 2), (WPE, 3)]
    {
        let error = FormatError::EncodingNotAllowed { tensor: tensor as u32 };
        assert_eq!(refused(tensor, 4, &[code]), error);
    }
}

#[test]
fn rejects_packing_not_allowed() {
    for (tensor, code) in [(WTE, 0), (C_FC, 0), (WPE, 1), (C_ATTN_BIAS, 1)] {
        let error = FormatError::PackingNotAllowed { tensor: tensor as u32 };
        assert_eq!(refused(tensor, 5, &[code]), error);
    }
}

#[test]
fn rejects_group_size() {
    // wte is q4, c_fc is f32.
    for (tensor, found) in [(WTE, 0u16), (WTE, 64), (WTE, 0x2000), (C_FC, 32), (C_FC, 1)] {
        let error = FormatError::GroupSize { tensor: tensor as u32, found };
        assert_eq!(refused(tensor, 6, &found.to_le_bytes()), error);
    }
}

#[test]
fn rejects_tensor_shape() {
    let error = FormatError::TensorShape { tensor: C_FC as u32 };
    // c_fc is [40, 64]: transposed, empty, one row more, and a product that overflows 32 bits.
    for (rows, cols) in [(64u32, 40u32), (0, 64), (40, 0), (41, 64), (40, 63), (1 << 16, 1 << 16)] {
        let file = with_entry(C_FC, |entry| {
            entry[8..12].copy_from_slice(&rows.to_le_bytes());
            entry[12..16].copy_from_slice(&cols.to_le_bytes());
        });
        assert_eq!(file.refused(), error);
    }
}

#[test]
fn rejects_tensor_offset() {
    for tensor in [WTE, C_ATTN, LM_HEAD] {
        let file = tiny::file();
        let offset = u64_at(file.bytes(), DIRECTORY + tensor * ENTRY_LEN + 16);
        for wrong in [0, offset - 64, offset - 1, offset + 1, offset + 64, 1 << 32, u64::MAX - 63] {
            let error = FormatError::TensorOffset { tensor: tensor as u32 };
            assert_eq!(refused(tensor, 16, &wrong.to_le_bytes()), error);
        }
    }
}

#[test]
fn rejects_tensor_length() {
    for tensor in [WTE, C_ATTN_BIAS, LM_HEAD] {
        let file = tiny::file();
        let len = u64_at(file.bytes(), DIRECTORY + tensor * ENTRY_LEN + 24);
        for wrong in [0, len - 64, len - 1, len + 1, len + 64, 1 << 32, u64::MAX] {
            let error = FormatError::TensorLength { tensor: tensor as u32 };
            assert_eq!(refused(tensor, 24, &wrong.to_le_bytes()), error);
        }
    }
}

#[test]
fn rejects_unknown_codebook() {
    for at in 36..40 {
        let error = FormatError::UnknownCodebook { tensor: WTE as u32 };
        assert_eq!(refused(WTE, at, &[1]), error);
    }
}

#[test]
fn rejects_reserved_bytes_of_an_entry() {
    for at in 40..64 {
        for tensor in [WTE, LM_HEAD] {
            let error = FormatError::EntryReservedNotZero { tensor: tensor as u32 };
            assert_eq!(refused(tensor, at, &[1]), error);
        }
    }
}

/// Every entry is looked at, the last one as well as the first.
#[test]
fn rejects_a_wrong_entry_wherever_it_is() {
    for tensor in 0..TENSORS {
        let error = FormatError::TensorShape { tensor: tensor as u32 };
        assert_eq!(refused(tensor, 8, &[0xee, 0xee]), error);
    }
}
