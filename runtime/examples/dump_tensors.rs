//! Writes every number of a `.pgpt` file as the runtime reads it, to compare another reader with.
//!
//! `dump_tensors MODEL OUT [TEXT]` writes, little-endian: each tensor in the order of the
//! directory as f32, row after row; then for each token of the tokenizer its length (u32) and
//! bytes; then the ids (u32) of TEXT.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use pocketgpt_runtime::format::{Encoding, MappedFile, Packing, TensorView, WeightFile};
use pocketgpt_runtime::quant::tile::{self, QuantRecord, ROWS};
use pocketgpt_runtime::quant::{unpack_q3, unpack_q4, unpack_q8};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [model, out, text @ ..] = args.as_slice() else {
        return Err("usage: dump_tensors MODEL OUT [TEXT]".into());
    };
    let map = MappedFile::open(Path::new(model))?;
    let file = WeightFile::new(map.bytes())?;
    file.verify()?;
    let mut out = BufWriter::new(File::create(out)?);
    for tensor in file.tensors() {
        for row in 0..tensor.entry.rows as usize {
            for col in 0..tensor.entry.cols as usize {
                out.write_all(&weight(&tensor, row, col).to_le_bytes())?;
            }
        }
    }
    if let Some(tokenizer) = file.tokenizer()? {
        for bytes in (0..tokenizer.vocab_size()).filter_map(|id| tokenizer.token_bytes(id)) {
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(bytes)?;
        }
        for id in text.iter().flat_map(|text| tokenizer.encode_to_vec(text)) {
            out.write_all(&id.to_le_bytes())?;
        }
    }
    out.flush()?;
    Ok(())
}

fn weight(tensor: &TensorView<'_>, row: usize, col: usize) -> f32 {
    let cols = tensor.entry.cols as usize;
    let (bytes, at) = match tensor.entry.packing {
        Packing::Rows => (tensor.bytes, row * cols + col),
        Packing::Tile16 => {
            let len = tensor.record_len();
            (&tensor.bytes[row / ROWS * len..][..len], col * ROWS + row % ROWS)
        }
    };
    let record = || QuantRecord::new(bytes, tile::groups(cols));
    match tensor.entry.encoding {
        Encoding::F32 => f32::from_le_bytes(bytes.as_chunks().0[at]),
        Encoding::F16 => half::f16::from_le_bytes(bytes.as_chunks().0[at]).to_f32(),
        Encoding::Q8 => unpack_q8(&record(), row % ROWS, col),
        Encoding::Q4 => unpack_q4(&record(), row % ROWS, col),
        Encoding::Q3 => unpack_q3(&record(), row % ROWS, col),
    }
}
