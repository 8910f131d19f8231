//! The same model in f32, made in memory: what quantization is faster than.

use anyhow::{Result, anyhow};
use pocketgpt_runtime::format::encode::FileLayout;
use pocketgpt_runtime::format::{Encoding, TensorView, WeightFile};
use pocketgpt_runtime::kernels::scalar::f16_to_f32;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::quant::tile::{self, QuantRecord, ROWS};
use pocketgpt_runtime::quant::{unpack_q3, unpack_q4, unpack_q8};

use crate::model::Model;
use crate::units;

/// Where the twin has its tensors.
fn layout(file: &WeightFile<'_>) -> FileLayout {
    // No tokenizer and no metadata: it only runs.
    let layout = FileLayout::new(file.config(), 0, 0, |_, _| Encoding::F32);
    layout.expect("the config of an opened file is valid")
}

/// Bytes that [`float_twin`] takes.
pub fn float_twin_bytes(file: &WeightFile<'_>) -> u64 {
    layout(file).file_len()
}

/// A model of the same shape with every weight in f32, as near as `model` knows it.
///
/// Its speed is that of the checkpoint converted to f32: that depends on shapes alone.
pub fn float_twin(model: &Model) -> Result<Model> {
    let file = model.weights()?;
    let layout = layout(&file);
    let len = usize::try_from(layout.file_len()).ok();
    let lines = len.and_then(|len| bytemuck::try_zeroed_vec::<Line>(len / Line::BYTES).ok());
    let mut lines = lines.ok_or_else(|| {
        let needed = units::bytes(layout.file_len());
        anyhow!(
            "{}: in f32 it takes {needed}, which are not there; give --no-baseline",
            model.name()
        )
    })?;
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut lines);
    // Checksums of tensors stay zero; only `verify` looks at them.
    let prefix = layout.encode_prefix(&[], "");
    bytes[..prefix.len()].copy_from_slice(&prefix);
    for (tensor, entry) in file.tensors().zip(&layout.entries) {
        let out = &mut bytes[entry.offset as usize..entry.end() as usize];
        if tensor.entry.role.is_matrix() {
            unpack(&tensor, bytemuck::cast_slice_mut(out));
        } else {
            unpack_rows(&tensor, bytemuck::cast_slice_mut(out));
        }
    }
    Ok(Model::in_memory(format!("{} in f32", model.name()), lines))
}

/// Records of 16 rows: `[cols][16]` in f32.
fn unpack(tensor: &TensorView<'_>, out: &mut [f32]) {
    let cols = tensor.entry.cols as usize;
    for (record, out) in tensor.records().zip(out.chunks_exact_mut(ROWS * cols)) {
        match tensor.entry.encoding {
            Encoding::F32 => out.copy_from_slice(bytemuck::cast_slice(record)),
            Encoding::F16 => floats(record, out),
            Encoding::Q8 => unpack_record(record, out, unpack_q8),
            Encoding::Q4 => unpack_record(record, out, unpack_q4),
            Encoding::Q3 => unpack_record(record, out, unpack_q3),
        }
    }
}

fn unpack_record(
    record: &[u8],
    out: &mut [f32],
    weight: fn(&QuantRecord<'_>, usize, usize) -> f32,
) {
    let lanes = out.as_chunks_mut::<ROWS>().0;
    let record = QuantRecord::new(record, tile::groups(lanes.len()));
    for (col, lanes) in lanes.iter_mut().enumerate() {
        for (lane, out) in lanes.iter_mut().enumerate() {
            *out = weight(&record, lane, col);
        }
    }
}

/// What is stored row after row: vectors, positions.
fn unpack_rows(tensor: &TensorView<'_>, out: &mut [f32]) {
    match tensor.entry.encoding {
        Encoding::F16 => floats(tensor.bytes, out),
        _ => out.copy_from_slice(tensor.f32s()),
    }
}

/// Numbers in f16, as many as `out` has; padding may follow.
fn floats(halves: &[u8], out: &mut [f32]) {
    let halves: &[u16] = bytemuck::cast_slice(halves);
    for (out, &half) in out.iter_mut().zip(halves) {
        *out = f16_to_f32(half);
    }
}

#[cfg(test)]
mod tests {
    use pocketgpt_runtime::quant::tile::{GROUP, record_len};
    use pocketgpt_runtime::quant::{pack_q4_block, pack_q8_block};

    use super::*;

    /// Two groups, and a last one of three.
    const COLS: usize = 2 * GROUP + 3;
    const GROUPS: usize = COLS.div_ceil(GROUP);

    fn value(lane: usize, col: usize) -> i8 {
        if col < COLS { ((lane * 31 + col * 7) % 16) as i8 - 8 } else { 0 }
    }

    #[test]
    fn records_hold_the_same_weights() {
        let values: Vec<i8> = (0..ROWS * GROUPS * GROUP)
            .map(|i| value(i / (GROUPS * GROUP), i % (GROUPS * GROUP)))
            .collect();
        let scale = |lane: usize, group: usize| (1 + lane + 20 * group) as i8;
        let scales: Vec<i8> = (0..ROWS * GROUPS).map(|i| scale(i / GROUPS, i % GROUPS)).collect();
        let row_scales: [f32; ROWS] = std::array::from_fn(|lane| 0.5 + lane as f32);
        let expected = |lane: usize, col: usize| {
            f32::from(value(lane, col)) * f32::from(scale(lane, col / GROUP)) * row_scales[lane]
        };
        let check = |out: &[f32]| {
            for (i, &weight) in out.iter().enumerate() {
                assert_eq!(weight, expected(i % ROWS, i / ROWS), "{i}");
            }
        };
        let mut out = vec![0.0; ROWS * COLS];

        let mut record = vec![0; record_len(Encoding::Q4, COLS)];
        pack_q4_block(&values, &scales, &row_scales, &mut record);
        unpack_record(&record, &mut out, unpack_q4);
        check(&out);

        out.fill(0.0);
        let scales: Vec<u8> = scales.iter().map(|&scale| scale as u8).collect();
        let mut record = vec![0; record_len(Encoding::Q8, COLS)];
        pack_q8_block(&values, &scales, &row_scales, &mut record);
        unpack_record(&record, &mut out, unpack_q8);
        check(&out);
    }

    #[test]
    fn halves_become_floats() {
        let halves = [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0];
        let mut out = [0.0; 4];
        floats(bytemuck::cast_slice(&halves), &mut out);
        assert_eq!(out, [1.0, -2.0, 2f32.powi(-24), 65504.0]);
    }

    #[cfg(feature = "embedded-model")]
    #[test]
    fn the_twin_says_the_same() {
        use pocketgpt_runtime::format::Role;

        use crate::args::{ModelArgs, RunArgs};
        use crate::engine::Engine;

        let model = Model::open(&ModelArgs::default()).unwrap();
        let twin = float_twin(&model).unwrap();
        let file = twin.weights().unwrap();
        assert_eq!(file.config(), model.weights().unwrap().config());
        assert!(file.tensors().all(|tensor| tensor.entry.encoding == Encoding::F32));
        assert_eq!(file.bytes().len() as u64, float_twin_bytes(&model.weights().unwrap()));
        let (twin_norm, norm) =
            (file.tensor(Role::LnFWeight, 0), model.weights().unwrap().tensor(Role::LnFWeight, 0));
        assert_eq!(twin_norm.f32s(), norm.f32s());

        let args = RunArgs {
            threads: Some(1),
            affinity: None,
            isa: None,
            kv: None,
            window: None,
            keep: None,
            huge_pages: false,
            batch: 8,
        };
        let ids = model.prompt_ids("Once upon a time there was a").unwrap();
        let logits = |model| {
            let mut engine = Engine::new(model, &args, 1).unwrap();
            let (mut session, par) = engine.session().unwrap();
            session.feed(&ids, par).unwrap().to_vec()
        };
        // The same weights; the model quantizes activations as well.
        let (ours, theirs) = (logits(&model), logits(&twin));
        let spread = |logits: &[f32]| logits.iter().map(|x| x * x).sum::<f32>();
        let apart: f32 = ours.iter().zip(&theirs).map(|(a, b)| (a - b) * (a - b)).sum();
        assert!(apart < 1e-3 * spread(&theirs), "{apart} {}", spread(&theirs));
    }
}
