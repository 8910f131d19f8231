//! Stage 3: tokens look at the tokens before them.

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::{Session, Tap};
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_stages::{Error, Picture, label, model_path};

const TEXT: &str = "The little tailor met a giant. The giant laughed at the little tailor";
/// Layer and head: one that looks at where the phrase began, and one that looks behind the place
/// where the token stood before.
const HEADS: [(usize, usize); 2] = [(3, 1), (5, 0)];

/// Keeps what the heads say: `rows[i][j]` is how much token `i` takes of token `j`.
#[derive(Default)]
struct Look {
    rows: [Vec<Vec<f32>>; HEADS.len()],
}

impl Tap for Look {
    fn wants_attention(&mut self, layer: usize) -> bool {
        HEADS.iter().any(|head| head.0 == layer)
    }
    fn attention(&mut self, layer: usize, head: usize, _position: usize, weights: &[f32]) {
        if let Some(i) = HEADS.iter().position(|&wanted| wanted == (layer, head)) {
            self.rows[i].push(weights.to_vec());
        }
    }
}

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
    let options = SessionOptions::new(model.config());
    let mut memory = vec![Line::ZERO; Plan::new(model.config(), &options)?.lines()];
    let mut session = Session::new(model, &options, &mut memory)?;

    let ids = tokenizer.encode_to_vec(TEXT);
    let mut look = Look::default();
    session.feed_tapped(&ids, &Serial, &mut look)?;

    let labels: Vec<String> =
        ids.iter().map(|&id| label(tokenizer.token_bytes(id).unwrap_or_default())).collect();
    let mut picture = Picture::new(40 + HEADS.len() * 470, 60 + 24 * ids.len());
    for (i, ((layer, head), rows)) in HEADS.iter().zip(&look.rows).enumerate() {
        println!("layer {layer}, head {head}: what each token looks at most");
        for (token, row) in rows.iter().enumerate() {
            let most = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
            println!("{:>10} -> {:<10} {:.2}", labels[token], labels[most], row[most]);
        }
        picture.text(10 + i * 470, 20, "start", &format!("layer {layer}, head {head}"));
        picture.matrix((90 + i * 470, 40), 24, &labels, rows);
    }
    picture.save("attention.svg")?;
    Ok(())
}
