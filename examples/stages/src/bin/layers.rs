//! Stage 4: layer after layer, the vector of a token becomes a guess at the next one.
//!
//! The guess is read off after every layer as if it were the last: the logit lens.

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::{Session, Tap};
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_stages::{Error, Picture, label, model_path, shade, softmax};

const TEXT: &str = "Once upon a time there was a king who had three";

/// Keeps the residual stream: `layers[l]` is `[tokens][n_embd]`.
#[derive(Default)]
struct Look {
    layers: Vec<Vec<f32>>,
}

impl Tap for Look {
    fn hidden(&mut self, layer: usize, _first: usize, rows: &[f32]) {
        self.layers.resize(self.layers.len().max(layer + 1), Vec::new());
        self.layers[layer].extend(rows);
    }
}

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let config = *model.config();
    assert!(config.tied_head, "this program reads guesses off with wte");
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
    let options = SessionOptions::new(&config);
    let mut memory = vec![Line::ZERO; Plan::new(&config, &options)?.lines()];
    let mut session = Session::new(model, &options, &mut memory)?;

    let ids = tokenizer.encode_to_vec(TEXT);
    let mut look = Look::default();
    session.feed_tapped(&ids, &Serial, &mut look)?;

    // The model's own last step, for any layer: normalize, then compare with every token of wte.
    let (n_embd, vocab_size) = (config.n_embd as usize, config.vocab_size);
    let mut wte = vec![vec![0.0; n_embd]; vocab_size as usize];
    for (id, row) in (0..vocab_size).zip(&mut wte) {
        model.token_embedding(id, row);
    }
    let name = |id: u32| label(tokenizer.token_bytes(id).unwrap_or_default());
    let width = 86;
    let mut picture = Picture::new(100 + width * ids.len(), 60 + 30 * look.layers.len());
    for (position, &id) in ids.iter().enumerate() {
        picture.text(90 + position * width + width / 2, 24, "middle", &name(id));
    }
    for (layer, rows) in look.layers.iter().enumerate() {
        let mut normed = vec![0.0; rows.len()];
        Session::final_norm(&model, rows, &mut normed);
        print!("after layer {layer}:");
        picture.text(80, 54 + 30 * layer, "end", &format!("layer {layer}"));
        for (position, x) in normed.chunks_exact(n_embd).enumerate() {
            let logits: Vec<f32> =
                wte.iter().map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect();
            let shares = softmax(&logits);
            let best =
                (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b])).unwrap_or(0);
            print!(" {}", name(best as u32));
            let (x, y) = (90 + position * width, 36 + 30 * layer);
            picture.rectangle(x, y, (width - 2, 28), shade(0.7 * shares[best]));
            picture.text(x + width / 2, y + 18, "middle", &name(best as u32));
        }
        println!();
    }
    picture.save("layers.svg")?;
    Ok(())
}
