//! Version 1 as it was first written: `tests/data/format/v1-tiny.pgpt`.
//!
//! Every number of the file follows from the formulas below, so that anyone can check a byte by
//! hand. `v1-q3.pgpt` is the same with its matrices in q3, which came later. A change of the bytes is a change of the format, which needs a new version or a new code;
//! `POCKETGPT_BLESS=1` writes the file anew while there is none yet.

use std::path::PathBuf;

use pocketgpt_runtime::config::{Activation, Gpt2Config};
use pocketgpt_runtime::format::{Encoding, Role, TensorEntry};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::quant::tile::GROUP;

use crate::decoder;
use crate::tiny::{self, FileBytes, Parts, Product, pack};

/// One block, one head, tied; every encoding, rows and inputs that fill no tile.
fn parts() -> Parts {
    let config = Gpt2Config {
        vocab_size: 261,
        n_ctx: 3,
        n_embd: 32,
        n_layer: 1,
        n_head: 1,
        n_inner: 20,
        activation: Activation::GeluNew,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        tied_head: true,
        layer_norm_epsilon: 1e-5,
        bos_token_id: None,
        eos_token_id: Some(260),
    };
    Parts { config, tokenizer: tiny::tokenizer(), metadata: r#"{"tool":"v1-tiny"}"#.into() }
}

fn encoding(role: Role) -> Encoding {
    match role {
        Role::Wte => Encoding::Q4,
        Role::CAttnWeight | Role::MlpCProjWeight => Encoding::Q8,
        Role::Wpe | Role::AttnCProjWeight => Encoding::F16,
        _ => Encoding::F32,
    }
}

/// All matrices in q3, as soon as there was such a code.
fn q3_encoding(role: Role) -> Encoding {
    match role {
        role if role.is_matrix() => Encoding::Q3,
        Role::Wpe => Encoding::F16,
        _ => Encoding::F32,
    }
}

fn power_of_two(exponent: usize) -> f32 {
    2f32.powi(-(exponent as i32))
}

/// f32 and f16, vectors among them (row 0).
fn float(row: usize, col: usize) -> f32 {
    ((13 * row + 7 * col) % 512) as f32 / 256.0 - 1.0
}

/// q8: integer, block scale and row scale.
fn q8(row: usize, col: usize) -> Product {
    let q = (5 * row + 3 * col) % 255;
    let b = (7 * row + col / GROUP) % 256;
    (q as i32 - 127, b as i32, power_of_two(10 + row % 4))
}

/// q4: integer, block scale and row scale.
fn q4(row: usize, col: usize) -> Product {
    let q = (row + 3 * col) % 16;
    let b = (11 * row + col / GROUP) % 255;
    (q as i32 - 8, b as i32 - 127, power_of_two(9 + row % 3))
}

/// q3: integer, block scale and row scale.
fn q3(row: usize, col: usize) -> Product {
    let q = (row + 3 * col) % 8;
    let (_, b, s) = q4(row, col);
    (q as i32 - 4, b, s)
}

/// What a weight of the file is worth.
fn expected(encoding: u8, row: usize, col: usize) -> f32 {
    let product = |(q, b, s): Product| q as f32 * b as f32 * s;
    match encoding {
        0 | 1 => float(row, col),
        2 => product(q8(row, col)),
        3 => product(q4(row, col)),
        _ => product(q3(row, col)),
    }
}

fn tensor(entry: &TensorEntry) -> Vec<u8> {
    let product = match entry.encoding {
        Encoding::Q8 => q8,
        Encoding::Q3 => q3,
        _ => q4,
    };
    pack(entry, float, product)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/format").join(name)
}

fn committed_as(name: &str) -> FileBytes {
    FileBytes::new(&std::fs::read(path(name)).expect(name))
}

fn committed() -> FileBytes {
    committed_as("v1-tiny.pgpt")
}

#[test]
fn version_1_does_not_change() {
    let files = [("v1-tiny.pgpt", encoding as fn(_) -> _), ("v1-q3.pgpt", q3_encoding)];
    for (name, encoding) in files {
        let built = parts().write(|role, _| encoding(role), tensor).file;
        if std::env::var_os("POCKETGPT_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path(name), built.bytes()).expect("the folder is there");
        }
        let committed = committed_as(name);
        let same = built.bytes().iter().zip(committed.bytes()).position(|(a, b)| a != b);
        assert_eq!(same, None, "the first byte of {name} that differs");
        assert_eq!(built.bytes().len(), committed.bytes().len());
    }
}

#[test]
fn every_weight_is_the_one_that_was_meant() {
    for (name, wte) in [("v1-tiny.pgpt", 3), ("v1-q3.pgpt", 4)] {
        every_weight_of(&committed_as(name), wte);
    }
}

/// `wte` is the code of its encoding.
fn every_weight_of(file: &FileBytes, wte: u8) {
    let opened = file.open().unwrap();
    opened.verify().unwrap();
    assert_eq!(*opened.config(), parts().config);
    assert_eq!(opened.metadata(), Ok(r#"{"tool":"v1-tiny"}"#));
    let tokenizer = opened.tokenizer().unwrap().unwrap();
    assert_eq!(tokenizer.encode_to_vec("hello<|endoftext|>"), [259, 260]);
    for tensor in decoder::tensors(file.bytes()) {
        for row in 0..tensor.rows {
            for col in 0..tensor.cols {
                let found = tensor.weight(file.bytes(), row, col);
                assert_eq!(found, expected(tensor.encoding, row, col), "role {}", tensor.role);
            }
        }
    }
    let model = Gpt2::new(opened, Kernels::best());
    for token in 0..261 {
        let mut row = [0.0; 32];
        model.token_embedding(token as u32, &mut row);
        assert_eq!(row.to_vec(), (0..32).map(|col| expected(wte, token, col)).collect::<Vec<_>>());
    }
    let [scalar, best] = tiny::two_steps(opened);
    assert_eq!(scalar, best);
}

/// The worked example of `docs/format.md` for q3, in the same way.
#[test]
fn worked_example_of_q3() {
    let file = committed_as("v1-q3.pgpt");
    let bytes = file.bytes();
    let wte = &decoder::tensors(bytes)[0];
    // Row 260 = record 16, lane 4. A record is 64 + 64 + 192 = 320 bytes.
    let weights = wte.start + 16 * 320 + 128;
    // Input 19 is in the third tile: byte 2 · 64 + 4 · 4 + 3 = 147, bits 0 to 2: (260 + 57) % 8 = 5.
    // Input 23 has bits 4 to 6: (260 + 69) % 8 = 1. Bits 3 and 7 are the last ones of inputs 27 and
    // 31: (260 + 81) % 8 = 5 and (260 + 93) % 8 = 1.
    assert_eq!(bytes[weights + 147], 0b0001_1101);
    // Their middle ones are in the second tile, together with inputs 11 and 15: 293 % 8 = 5, 305 % 8
    // = 1; their first ones in the first tile with inputs 3 and 7: 269 % 8 = 5, 281 % 8 = 1.
    assert_eq!(bytes[weights + 83], 0b0001_0101);
    assert_eq!(bytes[weights + 19], 0b1001_1101);
    // (5 − 4) · −72 / 2048 and (1 − 4) · −72 / 2048: the scales are those of the q4 example.
    assert_eq!(wte.weight(bytes, 260, 27), -72.0 / 2048.0);
    assert_eq!(wte.weight(bytes, 260, 31), 216.0 / 2048.0);
    // Lane 5 is behind the last row: 4 is 100, so the third tile has all last bits.
    assert_eq!([23, 87, 151].map(|at| bytes[weights + at]), [0x44, 0x44, 0xcc]);
}

/// The worked example of `docs/format.md`: bytes and numbers found with pencil and paper.
#[test]
fn worked_example() {
    let file = committed();
    let bytes = file.bytes();
    let tensors = decoder::tensors(bytes);
    let start = |index: usize| tensors[index].start;
    assert_eq!(start(0), 8192);

    // wte, q4, row 260 = record 16, lane 4. A record is 64 + 64 + 256 = 384 bytes.
    let record = start(0) + 16 * 384;
    // Row scale 2^-(9 + 260 % 3) = 2^-11; block scale (11 · 260) % 255 − 127 = −72.
    assert_eq!(bytes[record + 16..record + 20], [0x00, 0x00, 0x00, 0x3a]);
    assert_eq!(bytes[record + 64 + 4], 0xb8);
    // Inputs 27 and 31 share byte 3 · 64 + 4 · 4 + 3 = 211: (260 + 81) % 16 = 5, (260 + 93) % 16
    // = 1. They are worth (5 − 8) · −72 / 2048 and (1 − 8) · −72 / 2048.
    assert_eq!(bytes[record + 128 + 211], 0x15);
    assert_eq!(tensors[0].weight(bytes, 260, 27), 216.0 / 2048.0);
    assert_eq!(tensors[0].weight(bytes, 260, 31), 504.0 / 2048.0);
    // Lane 5 is behind the last row: scales 0, nibbles 8.
    assert_eq!(bytes[record + 20..record + 24], [0; 4]);
    assert_eq!(bytes[record + 64 + 5], 0);
    assert_eq!(bytes[record + 128 + 211 + 4], 0x88);

    // c_attn, q8, row 17 = record 1, lane 1. A record is 64 + 64 + 512 = 640 bytes.
    let record = start(4) + 640;
    // Row scale 2^-(10 + 17 % 4) = 2^-11, block scale 7 · 17 = 119.
    assert_eq!(bytes[record + 4..record + 8], [0x00, 0x00, 0x00, 0x3a]);
    assert_eq!(bytes[record + 64 + 1], 119);
    // Input 9: byte 2 · 64 + 4 + 1 = 133, (85 + 27) % 255 − 127 = −15; −15 · 119 / 2048.
    assert_eq!(bytes[record + 128 + 133], 0xf1);
    assert_eq!(tensors[4].weight(bytes, 17, 9), -1785.0 / 2048.0);

    // attn.c_proj, f16, row 18 = record 1, lane 2. A record is 32 · 32 = 1024 bytes. Input 5:
    // (234 + 35) % 512 / 256 − 1 = 13 / 256 = 1.625 · 2^-5, in f16 sign 0, exponent 10, 0b1010000000.
    let at = start(6) + 1024 + 2 * (16 * 5 + 2);
    assert_eq!(bytes[at..at + 2], [0x80, 0x2a]);
    assert_eq!(tensors[6].weight(bytes, 18, 5), 0.05078125);

    // mlp.c_fc, f32, row 19 = record 1, lane 3, input 31: (247 + 217) % 512 / 256 − 1 = 0.8125.
    let at = start(10) + 2048 + 4 * (16 * 31 + 3);
    assert_eq!(bytes[at..at + 4], [0x00, 0x00, 0x50, 0x3f]);
    assert_eq!(tensors[10].weight(bytes, 19, 31), 0.8125);

    // wpe, f16 row after row: row 2, input 0: 26 / 256 − 1 = −0.8984375 = −1.796875 · 2^-1.
    let at = start(1) + 2 * (2 * 32);
    assert_eq!(bytes[at..at + 2], [0x30, 0xbb]);
    assert_eq!(tensors[1].weight(bytes, 2, 0), -0.8984375);
}
