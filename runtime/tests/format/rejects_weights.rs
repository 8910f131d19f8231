//! Rules of the tensors' bytes, which only `verify` reads.

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::error::FormatError;
use pocketgpt_runtime::format::Encoding;

use crate::tiny::{
    self, ATTN_C_PROJ, C_ATTN, C_ATTN_BIAS, C_FC, FileBytes, LM_HEAD, MLP_C_PROJ, Parts, WPE, WTE,
    seal, u64_at,
};

/// The place of a tensor, and its length.
fn place(file: &FileBytes, tensor: usize) -> (usize, usize) {
    let entry = tiny::DIRECTORY + tensor * 64;
    (u64_at(file.bytes(), entry + 16) as usize, u64_at(file.bytes(), entry + 24) as usize)
}

/// Replaces bytes of a tensor and makes its CRC and those above correct again.
fn edit(file: &mut FileBytes, tensor: usize, at: usize, bytes: &[u8]) {
    let (start, len) = place(file, tensor);
    file.bytes_mut()[start + at..][..bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&file.bytes()[start..start + len]);
    file.bytes_mut()[tiny::DIRECTORY + tensor * 64 + 32..][..4].copy_from_slice(&crc.to_le_bytes());
    seal(file.bytes_mut(), 1);
}

fn refused(tensor: usize, at: usize, bytes: &[u8]) -> FormatError {
    let mut file = tiny::file();
    edit(&mut file, tensor, at, bytes);
    file.refused_by_verify()
}

#[test]
fn rejects_tensor_crc() {
    for tensor in 0..tiny::TENSORS {
        let mut file = tiny::file();
        let (start, len) = place(&file, tensor);
        for at in [start, start + len - 1] {
            file.bytes_mut()[at] ^= 1;
            let error = FormatError::TensorCrc { tensor: tensor as u32 };
            assert_eq!(file.refused_by_verify(), error);
            file.bytes_mut()[at] ^= 1;
        }
        file.open().unwrap().verify().unwrap();
    }
}

/// A vector of three numbers leaves most of its line empty.
#[test]
fn rejects_bytes_behind_a_tensor() {
    const C_FC_BIAS: usize = 11;
    let config = Gpt2Config { n_inner: 3, ..tiny::config() };
    let mut file = Parts { config, ..Parts::default() }.build(|_, _| Encoding::F32);
    let (start, len) = place(&file, C_FC_BIAS);
    assert_eq!(len, 12);
    for at in [len, 63] {
        file.bytes_mut()[start + at] = 1;
        let error = FormatError::TensorPadding { tensor: C_FC_BIAS as u32 };
        assert_eq!(file.refused_by_verify(), error);
        file.bytes_mut()[start + at] = 0;
    }
}

#[test]
fn rejects_not_finite() {
    let f32s = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|x| x.to_le_bytes().to_vec());
    // Infinity, and two NaNs.
    let f16s = [0x7c00u16, 0x7c01, 0xfe00].map(|x| x.to_le_bytes().to_vec());
    for (tensor, numbers) in [
        (C_ATTN_BIAS, &f32s),
        (C_FC, &f32s),
        (WPE, &f16s),
        (ATTN_C_PROJ, &f16s),
        // A row's scale.
        (C_ATTN, &f32s),
        (WTE, &f32s),
    ] {
        for number in numbers {
            let error = FormatError::NotFinite { tensor: tensor as u32 };
            assert_eq!(refused(tensor, 0, number), error);
            assert_eq!(refused(tensor, 15 * number.len(), number), error);
        }
    }
}

/// c_attn: q8 `[192, 64]`, so a record is 64 + 64 + 1024 bytes; wte: q4 `[17, 64]`, 64 + 64 + 512.
#[test]
fn rejects_minus_128() {
    let q8 = FormatError::OutsideRange { tensor: C_ATTN as u32 };
    assert_eq!(refused(C_ATTN, 128, &[0x80]), q8);
    assert_eq!(refused(C_ATTN, 1151, &[0x80]), q8);
    assert_eq!(refused(C_ATTN, 1152 + 128, &[0x80]), q8);
    let q4 = FormatError::OutsideRange { tensor: WTE as u32 };
    assert_eq!(refused(WTE, 64, &[0x80]), q4);
    assert_eq!(refused(WTE, 64 + 31, &[0x80]), q4);
    // A q8 block scale counts from 0 to 255, two nibbles may be anything.
    let mut file = tiny::file();
    edit(&mut file, C_ATTN, 64, &[0x80]);
    edit(&mut file, WTE, 128, &[0x80]);
    file.open().unwrap().verify().unwrap();
}

/// The head has 17 rows, so its second record has one row and 15 that are padding; wte as well.
#[test]
fn rejects_padded_rows_not_zero() {
    let q8 = FormatError::TensorPadding { tensor: LM_HEAD as u32 };
    let second = 1152;
    // Row scale, block scales of both groups, weights of the first and the last group.
    assert_eq!(refused(LM_HEAD, second + 4, &1.0f32.to_le_bytes()), q8);
    assert_eq!(refused(LM_HEAD, second + 4, &(-0.0f32).to_le_bytes()), q8);
    assert_eq!(refused(LM_HEAD, second + 64 + 1, &[1]), q8);
    assert_eq!(refused(LM_HEAD, second + 64 + 16 + 15, &[1]), q8);
    assert_eq!(refused(LM_HEAD, second + 128 + 4, &[1]), q8);
    assert_eq!(refused(LM_HEAD, second + 1151, &[1]), q8);

    let q4 = FormatError::TensorPadding { tensor: WTE as u32 };
    let second = 640;
    assert_eq!(refused(WTE, second + 60, &1.0f32.to_le_bytes()), q4);
    assert_eq!(refused(WTE, second + 64 + 31, &[1]), q4);
    // Zero is the nibble 8; an empty byte is −8 twice.
    assert_eq!(refused(WTE, second + 128 + 4, &[0]), q4);
    assert_eq!(refused(WTE, second + 639, &[0x89]), q4);
    assert_eq!(refused(WTE, second + 639, &[0x98]), q4);
}

/// `mlp.c_proj` in q4 has 40 inputs of 64, and two groups: 32 bytes of block scales.
#[test]
fn rejects_padded_inputs_and_scales_not_zero() {
    let error = FormatError::TensorPadding { tensor: MLP_C_PROJ as u32 };
    assert_eq!(refused(MLP_C_PROJ, 64 + 32, &[1]), error);
    assert_eq!(refused(MLP_C_PROJ, 64 + 63, &[1]), error);
    // Inputs 40 and 44 of row 0: five times eight inputs are in front.
    assert_eq!(refused(MLP_C_PROJ, 128 + 5 * 64, &[0x89]), error);
    assert_eq!(refused(MLP_C_PROJ, 128 + 5 * 64, &[0x98]), error);
    assert_eq!(refused(MLP_C_PROJ, 128 + 511, &[0x89]), error);
    // In q8 input 40 of row 1: ten times four inputs are in front.
    let mut file = Parts::default().build(|_, _| Encoding::Q8);
    edit(&mut file, MLP_C_PROJ, 128 + 10 * 64 + 4, &[1]);
    assert_eq!(file.refused_by_verify(), error);
}

/// In q3, `[17, 64]` is records of 64 + 64 + 384 bytes; zero is 4, so the bytes of a group of zeros are
/// `44`, `44` and `cc`, 64 times each.
#[test]
fn rejects_weights_of_three_bits() {
    let good = Parts::default().build(|_, _| Encoding::Q3);
    good.open().unwrap().verify().unwrap();
    let refused = |tensor, at, bytes: &[u8]| {
        let mut file = good.clone();
        edit(&mut file, tensor, at, bytes);
        file.refused_by_verify()
    };
    let range = FormatError::OutsideRange { tensor: WTE as u32 };
    assert_eq!(refused(WTE, 64, &[0x80]), range);
    assert_eq!(refused(WTE, 64 + 31, &[0x80]), range);
    let infinite = FormatError::NotFinite { tensor: WTE as u32 };
    assert_eq!(refused(WTE, 60, &f32::INFINITY.to_le_bytes()), infinite);
    // The second record has one row. Each bit of each of the three bytes belongs to a weight.
    let padding = FormatError::TensorPadding { tensor: WTE as u32 };
    let second = 512;
    assert_eq!(refused(WTE, second + 60, &1.0f32.to_le_bytes()), padding);
    assert_eq!(refused(WTE, second + 64 + 31, &[1]), padding);
    for (tile, zeros) in [0x44, 0x44, 0xcc].into_iter().enumerate() {
        for at in [second + 128 + 4, second + 128 + 192 + 63].map(|at| at + 64 * tile) {
            for bit in 0..8 {
                assert_eq!(refused(WTE, at, &[zeros ^ 1 << bit]), padding, "{at} {bit}");
            }
            let mut file = good.clone();
            edit(&mut file, WTE, at, &[zeros]);
            file.open().unwrap().verify().unwrap();
        }
    }
    // `mlp.c_proj` has 40 inputs: the second group's first tile holds eight of them.
    let padding = FormatError::TensorPadding { tensor: MLP_C_PROJ as u32 };
    assert_eq!(refused(MLP_C_PROJ, 64 + 32, &[1]), padding);
    let group = 128 + 192;
    let byte = good.bytes()[place(&good, MLP_C_PROJ).0 + group];
    assert_eq!(refused(MLP_C_PROJ, group, &[byte ^ 0x08]), padding);
    assert_eq!(refused(MLP_C_PROJ, group, &[byte ^ 0x80]), padding);
    assert_eq!(refused(MLP_C_PROJ, group + 64, &[0x45]), padding);
    let mut file = good.clone();
    edit(&mut file, MLP_C_PROJ, group, &[byte ^ 0x77]);
    file.open().unwrap().verify().unwrap();
}

/// 40 rows: the third record has eight. In f16 an odd number of inputs leaves half a line empty.
#[test]
fn rejects_float_padding_not_zero() {
    for (n_inner, encoding, width) in [
        (1, Encoding::F16, 2),
        (1, Encoding::F32, 4),
        (3, Encoding::F16, 2),
        (40, Encoding::F16, 2),
        (40, Encoding::F32, 4),
    ] {
        let config = Gpt2Config { n_embd: 40, n_head: 1, n_inner, ..tiny::config() };
        let whole = Parts { config, ..Parts::default() }.build(|_, _| encoding);
        whole.open().unwrap().verify().unwrap();
        let used = width * 16 * n_inner as usize;
        let record = used.next_multiple_of(64);
        // Row 8 of the third record at the first input, row 15 at the last.
        let mut padding = vec![2 * record + 8 * width, 2 * record + used - width];
        // Bytes behind the last input of the first record.
        padding.extend((used..record).step_by(31));
        for at in padding {
            let mut file = whole.clone();
            edit(&mut file, MLP_C_PROJ, at, &[1]);
            let error = FormatError::TensorPadding { tensor: MLP_C_PROJ as u32 };
            assert_eq!(file.refused_by_verify(), error, "{n_inner} {encoding:?} {at}");
        }
    }
}
