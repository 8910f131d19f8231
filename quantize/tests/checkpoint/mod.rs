//! Writes small checkpoints, right ones and wrong ones.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::{Path, PathBuf};

use pocketgpt_quantize::source::SourceDtype;
use pocketgpt_quantize::synth::{Preset, SynthOptions, synthesize};
use pocketgpt_quantize::{
    ConvertError, ConvertOptions, Encoding, Report, TokenizerChoice, convert,
};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

/// A tensor: dtype, shape, bytes.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn f32(name: &str, shape: &[usize], numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape: shape.into(), bytes }
    }
}

/// A checkpoint in a temporary folder: one layer of width 32, one head, 33 tokens.
pub struct Checkpoint {
    pub folder: tempfile::TempDir,
    pub config: Value,
    pub tensors: Vec<Tensor>,
}

pub const D: usize = 32;
pub const VOCAB: usize = 33;

impl Checkpoint {
    pub fn new() -> Self {
        let config = json!({
            "model_type": "gpt2", "vocab_size": VOCAB, "n_positions": 8, "n_embd": D,
            "n_layer": 1, "n_head": 1,
        });
        let h = "transformer.h.0.";
        let shapes: Vec<(String, Vec<usize>)> = vec![
            ("transformer.wte.weight".into(), vec![VOCAB, D]),
            ("transformer.wpe.weight".into(), vec![8, D]),
            (format!("{h}ln_1.weight"), vec![D]),
            (format!("{h}ln_1.bias"), vec![D]),
            (format!("{h}attn.c_attn.weight"), vec![D, 3 * D]),
            (format!("{h}attn.c_attn.bias"), vec![3 * D]),
            (format!("{h}attn.c_proj.weight"), vec![D, D]),
            (format!("{h}attn.c_proj.bias"), vec![D]),
            (format!("{h}ln_2.weight"), vec![D]),
            (format!("{h}ln_2.bias"), vec![D]),
            (format!("{h}mlp.c_fc.weight"), vec![D, 4 * D]),
            (format!("{h}mlp.c_fc.bias"), vec![4 * D]),
            (format!("{h}mlp.c_proj.weight"), vec![4 * D, D]),
            (format!("{h}mlp.c_proj.bias"), vec![D]),
            ("transformer.ln_f.weight".into(), vec![D]),
            ("transformer.ln_f.bias".into(), vec![D]),
        ];
        let tensors = shapes
            .into_iter()
            .enumerate()
            .map(|(i, (name, shape))| {
                let count = shape.iter().product();
                Tensor::f32(&name, &shape, &numbers(i as u32, count))
            })
            .collect();
        Self { folder: tempfile::tempdir().unwrap(), config, tensors }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|t| t.name.ends_with(name)).unwrap()
    }

    pub fn write(&self) -> &Self {
        std::fs::write(self.path("config.json"), self.config.to_string()).unwrap();
        write_safetensors(&self.path("model.safetensors"), &self.tensors);
        self
    }

    /// Converts without tokenizer, to a file beside the checkpoint.
    pub fn convert(&self, to: Encoding) -> Result<Report, ConvertError> {
        let options =
            ConvertOptions { to, tokenizer: TokenizerChoice::Skip, ..ConvertOptions::default() };
        convert(self.folder.path(), &self.output(), &options, &mut ())
    }

    pub fn output(&self) -> PathBuf {
        self.path("out.pgpt")
    }

    /// Writes, converts to q8, and gives the error.
    pub fn error(&self) -> String {
        self.write();
        self.error_as_written()
    }

    /// Converts to q8, and gives the error; no file may be left behind.
    pub fn error_as_written(&self) -> String {
        let before = names(self.folder.path());
        let error = self.convert(Encoding::Q8).unwrap_err().to_string();
        assert_eq!(names(self.folder.path()), before, "left behind after: {error}");
        assert!(!error.contains('\n'), "{error}");
        let folder = self.folder.path().to_str().unwrap();
        assert!(error.contains(folder), "does not name the file: {error}");
        error
    }
}

/// Names of the files in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Numbers in ±0.05 that f16 and bf16 do not represent exactly.
pub fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9).wrapping_add(12345);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 0.05
        })
        .collect()
}

pub fn write_safetensors(path: &Path, tensors: &[Tensor]) {
    let views = tensors
        .iter()
        .map(|t| (t.name.as_str(), TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    std::fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// Adds a made-up tokenizer with this many entries.
pub fn write_tokenizer(folder: &Path, vocab_size: u32) -> Value {
    let tokenizer = pocketgpt_quantize::synth_tokenizer::tokenizer_json(vocab_size);
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    tokenizer
}

/// A random checkpoint with a tokenizer.
pub fn tiny() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let options =
        SynthOptions { preset: Preset::Tiny, seed: 1, dtype: SourceDtype::F32, force: false };
    synthesize(folder.path(), &options, &mut ()).unwrap();
    folder
}
