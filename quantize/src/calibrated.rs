//! The tensors of a file whose matrices are fitted to a text.

use std::collections::HashMap;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::tensor::{NO_LAYER, canonical};
use pocketgpt_runtime::format::{Encoding, Role, TensorEntry};
use pocketgpt_runtime::quant::tile::{self, ROWS, record_len};

use crate::allocate::Encodings;
use crate::calibrate::{Block, Calibration, Divergence, Fitted, Linear, Moments, Norm, Step, fit};
use crate::convert::dtype_of;
use crate::error::ConvertError;
use crate::gpt2_names::{NamedTensors, is_transposed};
use crate::numbers::{SourceMatrix, count_not_finite, read_numbers};
use crate::pack::{BlockScratch, Loss, encode_block};
use crate::progress::Progress;
use crate::source::Checkpoint;

/// Reads tensors of a checkpoint as numbers.
pub(crate) struct Reader<'a> {
    pub(crate) checkpoint: &'a mut Checkpoint,
    pub(crate) named: &'a NamedTensors,
    pub(crate) config: Gpt2Config,
}

impl Reader<'_> {
    fn index(&self, wanted: Role, layer: usize) -> usize {
        (0..self.named.tensors.len())
            .find(|i| {
                let (role, of) = canonical(&self.config, *i);
                role == wanted && (of == NO_LAYER || usize::from(of) == layer)
            })
            .expect("every role of the config has a tensor")
    }

    fn bytes(&mut self, index: usize) -> Result<Vec<u8>, ConvertError> {
        let tensor = &self.named.tensors[index];
        let mut bytes = Vec::new();
        self.checkpoint.read(tensor, 0..tensor.byte_len(), &mut bytes)?;
        let count = count_not_finite(dtype_of(tensor), &bytes);
        if count > 0 {
            let path = self.checkpoint.path_of(tensor).into();
            return Err(ConvertError::NotFinite { path, tensor: tensor.name.clone(), count });
        }
        Ok(bytes)
    }

    /// Numbers as they stand in the checkpoint.
    pub(crate) fn numbers(&mut self, role: Role, layer: usize) -> Result<Vec<f32>, ConvertError> {
        let index = self.index(role, layer);
        let bytes = self.bytes(index)?;
        let dtype = dtype_of(&self.named.tensors[index]);
        let mut numbers = vec![0.0; bytes.len() / dtype.width()];
        read_numbers(dtype, &bytes, &mut numbers);
        Ok(numbers)
    }

    /// A matrix with the bias of `bias`.
    pub(crate) fn linear(
        &mut self,
        role: Role,
        bias: Option<Role>,
        layer: usize,
    ) -> Result<Linear, ConvertError> {
        let index = self.index(role, layer);
        let bytes = self.bytes(index)?;
        let (rows, cols) = role.shape(&self.config);
        let (rows, cols) = (rows as usize, cols as usize);
        let dtype = dtype_of(&self.named.tensors[index]);
        let matrix =
            SourceMatrix { bytes: &bytes, dtype, transposed: is_transposed(role), rows, cols };
        let mut weights = vec![0.0; tile::blocks(rows) * ROWS * cols];
        for (block, out) in weights.chunks_exact_mut(ROWS * cols).enumerate() {
            matrix.read_block(block, out);
        }
        weights.truncate(rows * cols);
        let bias = bias.map_or(Ok(vec![]), |bias| self.numbers(bias, layer))?;
        Ok(Linear::new(&weights, cols, bias))
    }

    pub(crate) fn norm(
        &mut self,
        weight: Role,
        bias: Role,
        layer: usize,
    ) -> Result<Norm, ConvertError> {
        Ok(Norm { weight: self.numbers(weight, layer)?, bias: self.numbers(bias, layer)? })
    }

    pub(crate) fn block(&mut self, layer: usize) -> Result<Block, ConvertError> {
        Ok(Block {
            ln_1: self.norm(Role::Ln1Weight, Role::Ln1Bias, layer)?,
            c_attn: self.linear(Role::CAttnWeight, Some(Role::CAttnBias), layer)?,
            attn_c_proj: self.linear(Role::AttnCProjWeight, Some(Role::AttnCProjBias), layer)?,
            ln_2: self.norm(Role::Ln2Weight, Role::Ln2Bias, layer)?,
            c_fc: self.linear(Role::CFcWeight, Some(Role::CFcBias), layer)?,
            mlp_c_proj: self.linear(Role::MlpCProjWeight, Some(Role::MlpCProjBias), layer)?,
        })
    }

    /// Bytes of a block in the checkpoint.
    pub(crate) fn block_bytes(&self, layer: usize) -> u64 {
        let first = self.index(Role::Ln1Weight, layer);
        self.named.tensors[first..first + 12].iter().map(|t| t.byte_len() as u64).sum()
    }
}

/// Fitted tensors, and what it takes to fit the next ones.
pub(crate) struct Calibrated {
    calibration: Calibration,
    encodings: Encodings,
    /// The checkpoint's head.
    head: Linear,
    ln_f: Norm,
    /// The file's.
    stored_head: Linear,
    /// Tensors that are made and not yet written.
    ready: HashMap<(Role, u16), (Vec<u8>, Loss)>,
}

impl Calibrated {
    /// Begins behind `wte`, which is fitted.
    pub(crate) fn new(
        calibration: Calibration,
        encodings: Encodings,
        wte: Linear,
        ln_f: Norm,
        fitted: Fitted,
    ) -> Self {
        let ready = HashMap::from([((Role::Wte, NO_LAYER), (fitted.records, fitted.loss))]);
        Self { calibration, encodings, head: wte, ln_f, stored_head: fitted.linear, ready }
    }

    /// The bytes of a tensor that is not as in the checkpoint; tensors are asked for in the
    /// order of the file.
    pub(crate) fn tensor(
        &mut self,
        reader: &mut Reader<'_>,
        entry: &TensorEntry,
        progress: &mut dyn Progress,
    ) -> Result<Option<(Vec<u8>, Loss)>, ConvertError> {
        match entry.role {
            Role::Ln1Weight => self.fit_block(reader, entry.layer, progress)?,
            Role::LmHead => {
                let head = reader.linear(Role::LmHead, None, 0)?;
                let moments = self.calibration.head_moments(&self.ln_f, true);
                let step = &mut || cancelled(progress);
                let fitted = fit_or_keep(&head, entry.encoding, &moments, step)?;
                self.head = head;
                self.stored_head = fitted.linear;
                return Ok(Some((fitted.records, fitted.loss)));
            }
            _ => {}
        }
        Ok(self.ready.remove(&(entry.role, entry.layer)))
    }

    fn fit_block(
        &mut self,
        reader: &mut Reader<'_>,
        layer: u16,
        progress: &mut dyn Progress,
    ) -> Result<(), ConvertError> {
        let block = reader.block(layer.into())?;
        let encodings = self.encodings.blocks[usize::from(layer)];
        let step = &mut || cancelled(progress);
        let fitted = self.calibration.block(layer.into(), &block, encodings, step)?;
        let roles = [
            (Role::CAttnWeight, Role::CAttnBias),
            (Role::AttnCProjWeight, Role::AttnCProjBias),
            (Role::CFcWeight, Role::CFcBias),
            (Role::MlpCProjWeight, Role::MlpCProjBias),
        ];
        for ((weight, bias), fitted) in roles.into_iter().zip(fitted) {
            if fitted.linear.bias.iter().any(|bias| !bias.is_finite()) {
                return Err(ConvertError::Diverged { layer });
            }
            let bytes = fitted.linear.bias.iter().flat_map(|b| b.to_le_bytes()).collect();
            self.ready.insert((bias, layer), (bytes, Loss::default()));
            self.ready.insert((weight, layer), (fitted.records, fitted.loss));
        }
        Ok(())
    }

    /// How far the finished file is from the checkpoint.
    pub(crate) fn divergence(&self) -> Option<Divergence> {
        self.calibration.divergence(&self.ln_f, &self.head, &self.stored_head)
    }
}

pub(crate) fn cancelled(progress: &dyn Progress) -> Result<(), ConvertError> {
    if progress.is_cancelled() { Err(ConvertError::Cancelled) } else { Ok(()) }
}

/// Fits a matrix; one that stays float is only stored.
pub(crate) fn fit_or_keep(
    source: &Linear,
    encoding: Encoding,
    moments: &Moments,
    step: Step<'_, ConvertError>,
) -> Result<Fitted, ConvertError> {
    if encoding.is_quantized() {
        return fit(source, encoding, moments, step);
    }
    let len = record_len(encoding, source.cols);
    let mut records = vec![0; tile::blocks(source.rows) * len];
    let mut scratch = BlockScratch::new(source.cols);
    let mut loss = Loss::default();
    let mut rows = vec![0.0; ROWS * source.cols];
    for (block, record) in records.chunks_exact_mut(len).enumerate() {
        rows.fill(0.0);
        for (lane, row) in rows.chunks_exact_mut(source.cols).enumerate() {
            if block * ROWS + lane < source.rows {
                source.row(block * ROWS + lane, row);
            }
        }
        loss += encode_block(encoding, &rows, None, &mut scratch, record);
    }
    let shape = (source.rows, source.cols);
    let linear = Linear::from_records(encoding, &records, shape, source.bias.clone());
    Ok(Fitted { records, linear, loss })
}
