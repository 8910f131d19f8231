//! What the benches share: synthetic models and inputs.

use std::path::Path;

use pocketgpt_quantize::source::SourceDtype;
use pocketgpt_quantize::synth::{Preset, SynthOptions, synthesize};
use pocketgpt_quantize::{ConvertOptions, Encoding, TokenizerChoice, convert};
use pocketgpt_runtime::format::MappedFile;

/// A random model of GPT-2's 124M shape, converted to each of the encodings.
pub struct Models {
    _folder: tempfile::TempDir,
    files: Vec<(Encoding, MappedFile)>,
}

impl Models {
    /// Makes the checkpoint and converts it; takes some 15 seconds for three encodings.
    pub fn gpt2(encodings: &[Encoding]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let checkpoint = folder.path().join("gpt2");
        let options =
            SynthOptions { preset: Preset::Gpt2, seed: 0, dtype: SourceDtype::F16, force: false };
        synthesize(&checkpoint, &options, &mut ()).expect("room for 500 MB");
        let files = encodings.iter().map(|&to| (to, converted(&checkpoint, to))).collect();
        Self { _folder: folder, files }
    }

    /// The files.
    pub fn iter(&self) -> impl Iterator<Item = (Encoding, &MappedFile)> {
        self.files.iter().map(|(encoding, file)| (*encoding, file))
    }
}

fn converted(checkpoint: &Path, to: Encoding) -> MappedFile {
    let path = checkpoint.with_extension(to.name());
    let tokenizer = TokenizerChoice::Skip;
    let options = ConvertOptions { to, tokenizer, ..ConvertOptions::default() };
    convert(checkpoint, &path, &options, &mut ()).expect("a good checkpoint");
    MappedFile::open(&path).expect("just written")
}

/// Numbers that are neither zero nor all alike; the same at each call.
pub fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0).collect()
}
