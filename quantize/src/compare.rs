//! What a file lost, layer by layer, on a text.

mod plot;

use std::fmt;
use std::path::Path;

use pocketgpt_runtime::config::Gpt2Config;
use pocketgpt_runtime::format::{Encoding, MappedFile, Role, WeightFile};
use serde::Serialize;

use crate::calibrate::text::{self, Windows};
use crate::calibrate::{Block, Calibration, Linear, Network, Norm, add, loss};
use crate::error::ConvertError;
use crate::gpt2_names::tensor_name;
use crate::pack::Loss;
use crate::progress::Progress;
use crate::report::{DivergenceReport, snr_db};
use crate::threads::on_threads;

/// What a file lost against the same model in f32.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Name of the file, without the path.
    pub file: String,
    /// Name of the reference.
    pub reference: String,
    /// Tokens of the text that both read.
    pub tokens: usize,
    /// The matrices of the blocks, in the order of the file.
    pub matrices: Vec<MatrixComparison>,
    /// The residual stream, behind the embeddings first, then behind each block.
    pub stream_snr_db: Vec<Option<f64>>,
    /// Of the predictions, activations being f32.
    pub divergence: DivergenceReport,
}

/// One matrix.
#[derive(Clone, Debug, Serialize)]
pub struct MatrixComparison {
    /// Its name in the checkpoint.
    pub name: String,
    /// How it is stored.
    pub encoding: &'static str,
    /// Signal to noise of the weights in dB; null if nothing was lost. Matrices that make good
    /// what others lost differ from the checkpoint's on purpose.
    pub weight_snr_db: Option<f64>,
    /// Signal to noise of the output, from the inputs that the reference gives.
    pub output_snr_db: Option<f64>,
    /// Signal to noise of the output as the file computes it, from inputs that lost something
    /// already.
    pub stream_output_snr_db: Option<f64>,
}

impl Comparison {
    /// One picture of it, as SVG.
    pub fn svg(&self) -> String {
        plot::svg(self)
    }
}

/// Reads `text` with both files, `.pgpt` of one shape, in f32.
///
/// # Errors
/// If a file cannot be read, if the shapes differ, or if there is no text.
pub fn compare(
    path: &Path,
    reference: &Path,
    text: &str,
    tokens: usize,
    progress: &mut dyn Progress,
) -> Result<Comparison, ConvertError> {
    on_threads(None, || compare_here(path, reference, text, tokens, progress))
}

fn compare_here(
    path: &Path,
    reference: &Path,
    text: &str,
    tokens: usize,
    progress: &mut dyn Progress,
) -> Result<Comparison, ConvertError> {
    let (own_map, reference_map) = (map(path)?, map(reference)?);
    let (own, theirs) = (open(path, &own_map)?, open(reference, &reference_map)?);
    let config = *own.config();
    if config != *theirs.config() {
        return Err(ConvertError::OtherShape { path: path.into(), reference: reference.into() });
    }
    let windows = windows(path, &own, text, tokens)?;
    let lengths: Vec<usize> = windows.windows.iter().map(|w| w.len()).collect();
    let network = Calibration::new(config, windows.clone()).network;
    progress.start(u64::from(config.n_layer) + 1);
    let embed = |file: &WeightFile<'_>| {
        let wpe = rows(file, Role::Wpe, 0);
        network.embed(&linear(file, Role::Wte, None, 0), &wpe, &windows.tokens, &windows.windows)
    };
    let mut streams = [embed(&theirs), embed(&own)];
    let mut matrices = Vec::new();
    let mut stream_snr_db = vec![snr(&streams[0], &streams[1])];
    for layer in 0..config.n_layer as usize {
        progress.tensor(&format!("h.{layer}"));
        if progress.is_cancelled() {
            return Err(ConvertError::Cancelled);
        }
        let blocks = [block(&theirs, layer), block(&own, layer)];
        let outputs = through(&network, layer, &blocks, &mut streams, &lengths);
        for (role, output) in MATRICES.into_iter().zip(outputs) {
            let (a, b) = (pick(&blocks[0], role), pick(&blocks[1], role));
            matrices.push(MatrixComparison {
                name: tensor_name(role, layer as u16),
                encoding: own.tensor(role, layer).entry.encoding.name(),
                weight_snr_db: snr_db(&loss(a, b)),
                output_snr_db: output[0],
                stream_output_snr_db: output[1],
            });
        }
        stream_snr_db.push(snr(&streams[0], &streams[1]));
        progress.advance(1);
    }
    let divergence = predictions(&network, [&theirs, &own], &streams);
    progress.finish();
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Comparison {
        file: name(path),
        reference: name(reference),
        tokens: windows.tokens.len(),
        matrices,
        stream_snr_db,
        divergence,
    })
}

const MATRICES: [Role; 4] =
    [Role::CAttnWeight, Role::AttnCProjWeight, Role::CFcWeight, Role::MlpCProjWeight];

fn pick(block: &Block, role: Role) -> &Linear {
    match role {
        Role::CAttnWeight => &block.c_attn,
        Role::AttnCProjWeight => &block.attn_c_proj,
        Role::CFcWeight => &block.c_fc,
        _ => &block.mlp_c_proj,
    }
}

/// Leads both streams through a block; gives for each matrix the signal to noise of its output with
/// the reference's inputs, and with the file's own.
fn through(
    network: &Network,
    layer: usize,
    blocks: &[Block; 2],
    streams: &mut [Vec<f32>; 2],
    lengths: &[usize],
) -> [[Option<f64>; 2]; 4] {
    let kernels = &network.kernels;
    let [reference, own] = blocks;
    let mut found = [[None; 2]; 4];
    let mut judge = |place: usize, role: Role, inputs: &[Vec<f32>; 2]| {
        let expected = pick(reference, role).apply(kernels, &inputs[0]);
        let same_inputs = pick(own, role).apply(kernels, &inputs[0]);
        let output = pick(own, role).apply(kernels, &inputs[1]);
        found[place] = [snr(&expected, &same_inputs), snr(&expected, &output)];
        [expected, output]
    };
    let normed = |streams: &[Vec<f32>; 2], of: fn(&Block) -> &Norm| {
        [network.norm(of(reference), &streams[0]), network.norm(of(own), &streams[1])]
    };
    let qkv = judge(0, Role::CAttnWeight, &normed(streams, |block| &block.ln_1));
    let attention = qkv.map(|qkv| network.attention(layer, &qkv, lengths));
    let outputs = judge(1, Role::AttnCProjWeight, &attention);
    streams.iter_mut().zip(&outputs).for_each(|(stream, output)| add(stream, output));
    let hidden = judge(2, Role::CFcWeight, &normed(streams, |block| &block.ln_2));
    let hidden = hidden.map(|hidden| network.activate(hidden));
    let outputs = judge(3, Role::MlpCProjWeight, &hidden);
    streams.iter_mut().zip(&outputs).for_each(|(stream, output)| add(stream, output));
    found
}

fn predictions(
    network: &Network,
    files: [&WeightFile<'_>; 2],
    streams: &[Vec<f32>; 2],
) -> DivergenceReport {
    let head = |file: &WeightFile<'_>| match file.config().tied_head {
        true => linear(file, Role::Wte, None, 0),
        false => linear(file, Role::LmHead, None, 0),
    };
    let hidden = |i: usize| {
        let file = files[i];
        let weight = rows(file, Role::LnFWeight, 0);
        network.norm(&Norm { weight, bias: rows(file, Role::LnFBias, 0) }, &streams[i])
    };
    let (heads, hiddens) = (files.map(head), [hidden(0), hidden(1)]);
    let all = 0..hiddens[0].len() / network.width();
    let found = crate::calibrate::divergence(
        &network.kernels,
        (&hiddens[0], &heads[0]),
        (&hiddens[1], &heads[1]),
        all,
    );
    DivergenceReport::new(found)
}

fn snr(signal: &[f32], other: &[f32]) -> Option<f64> {
    let mut loss = Loss::default();
    for (a, b) in signal.iter().zip(other) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        loss.signal += a * a;
        loss.noise += (a - b) * (a - b);
    }
    snr_db(&loss)
}

fn map(path: &Path) -> Result<MappedFile, ConvertError> {
    MappedFile::open(path).map_err(ConvertError::io("open", path))
}

fn open<'a>(path: &Path, map: &'a MappedFile) -> Result<WeightFile<'a>, ConvertError> {
    let format = |source| ConvertError::Format { path: path.into(), source };
    WeightFile::new(map.bytes()).map_err(format)
}

fn windows(
    path: &Path,
    file: &WeightFile<'_>,
    text: &str,
    tokens: usize,
) -> Result<Windows, ConvertError> {
    let format = |source| ConvertError::Format { path: path.into(), source };
    let view = file.tokenizer().map_err(format)?;
    let view = view.ok_or(ConvertError::CalibrationWithoutTokenizer)?;
    let config: &Gpt2Config = file.config();
    let stream = text::stream(text, config.eos_token_id, |text| view.encode_to_vec(text));
    let windows = Windows::new(&stream, config.n_ctx as usize, tokens);
    windows.ok_or_else(|| ConvertError::EmptyCalibration { path: path.into() })
}

/// Numbers that stand row after row.
fn rows(file: &WeightFile<'_>, role: Role, layer: usize) -> Vec<f32> {
    let tensor = file.tensor(role, layer);
    match tensor.entry.encoding {
        Encoding::F16 => {
            let halves = tensor.bytes.as_chunks::<2>().0.iter();
            halves.map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => tensor.f32s().to_vec(),
    }
}

fn linear(file: &WeightFile<'_>, role: Role, bias: Option<Role>, layer: usize) -> Linear {
    let tensor = file.tensor(role, layer);
    let shape = (tensor.entry.rows as usize, tensor.entry.cols as usize);
    let bias = bias.map_or(vec![], |bias| rows(file, bias, layer));
    Linear::from_records(tensor.entry.encoding, tensor.bytes, shape, bias)
}

fn block(file: &WeightFile<'_>, layer: usize) -> Block {
    let norm =
        |weight, bias| Norm { weight: rows(file, weight, layer), bias: rows(file, bias, layer) };
    let linear = |weight, bias| linear(file, weight, Some(bias), layer);
    Block {
        ln_1: norm(Role::Ln1Weight, Role::Ln1Bias),
        c_attn: linear(Role::CAttnWeight, Role::CAttnBias),
        attn_c_proj: linear(Role::AttnCProjWeight, Role::AttnCProjBias),
        ln_2: norm(Role::Ln2Weight, Role::Ln2Bias),
        c_fc: linear(Role::CFcWeight, Role::CFcBias),
        mlp_c_proj: linear(Role::MlpCProjWeight, Role::MlpCProjBias),
    }
}

/// The table for people.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let db = |x: Option<f64>| x.map_or("exact".into(), |x| format!("{x:.2}"));
        writeln!(f, "signal to noise of {} against {}, dB", self.file, self.reference)?;
        writeln!(
            f,
            "{:<26} {:>4} {:>9} {:>9} {:>10}",
            "matrix", "", "weights", "output", "in the file"
        )?;
        for m in &self.matrices {
            let (weights, output) = (db(m.weight_snr_db), db(m.output_snr_db));
            let own = db(m.stream_output_snr_db);
            writeln!(f, "{:<26} {:>4} {weights:>9} {output:>9} {own:>10}", m.name, m.encoding)?;
        }
        writeln!(f, "residual stream behind the embeddings: {}", db(self.stream_snr_db[0]))?;
        for (layer, snr) in self.stream_snr_db[1..].iter().enumerate() {
            writeln!(f, "residual stream behind block {layer}: {}", db(*snr))?;
        }
        write!(
            f,
            "mean KL divergence {:.6}, top 1 {:.2} % the same ({} positions)",
            self.divergence.mean_kl_divergence,
            100.0 * self.divergence.top1_agreement,
            self.divergence.positions
        )
    }
}
