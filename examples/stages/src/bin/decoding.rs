//! Stage 5: from what the model expects to a text, by drawing one token after the other.

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::memory::Line;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::Session;
use pocketgpt_runtime::workspace::{Plan, SessionOptions};
use pocketgpt_stages::{Error, Picture, label, model_path, shade, softmax};

const PROMPT: &str = "Once upon a time there was a";
const TOP_K: usize = 10;

/// The `TOP_K` most probable tokens with their shares. A low temperature sharpens, a high one
/// flattens.
fn candidates(logits: &[f32], temperature: f32) -> Vec<(u32, f32)> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ids.truncate(TOP_K);
    let kept: Vec<f32> = ids.iter().map(|&id| logits[id as usize] / temperature).collect();
    ids.into_iter().zip(softmax(&kept)).collect()
}

/// Walks along the shares until they reach a number from 0 to 1: likely tokens are met often.
fn draw(candidates: &[(u32, f32)], mut at: f32) -> u32 {
    for &(id, share) in candidates {
        if at < share {
            return id;
        }
        at -= share;
    }
    candidates[0].0
}

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
    let options = SessionOptions::new(model.config());
    let mut memory = vec![Line::ZERO; Plan::new(model.config(), &options)?.lines()];
    let mut session = Session::new(model, &options, &mut memory)?;
    let prompt = tokenizer.encode_to_vec(PROMPT);
    let logits = session.feed(&prompt, &Serial)?.to_vec();

    let mut picture = Picture::new(3 * 250, 50 + 24 * TOP_K);
    for (i, temperature) in [0.5, 1.0, 2.0].into_iter().enumerate() {
        println!("what may follow \"{PROMPT}\" at temperature {temperature}:");
        picture.text(20 + 250 * i, 22, "start", &format!("temperature {temperature}"));
        for (row, (id, share)) in candidates(&logits, temperature).into_iter().enumerate() {
            let token = label(tokenizer.token_bytes(id).unwrap_or_default());
            println!("  {share:.3} {token}");
            let (x, y) = (80 + 250 * i, 34 + 24 * row);
            picture.text(x - 6, y + 16, "end", &token);
            picture.rectangle(x, y, (1 + (400.0 * share) as usize, 20), shade(0.6));
        }
    }

    // Two texts, from two seeds of a small generator (xorshift64, Marsaglia 2003).
    for seed in [1u64, 2] {
        let (mut state, mut text) = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), prompt.clone());
        session.truncate(0);
        let mut next = session.feed(&text, &Serial)?.to_vec();
        for _ in 0..40 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let token = draw(&candidates(&next, 0.8), (state >> 40) as f32 / (1 << 24) as f32);
            text.push(token);
            next = session.feed(&[token], &Serial)?.to_vec();
        }
        println!("\nseed {seed}: {}", tokenizer.decode_to_string(&text));
    }
    picture.save("decoding.svg")?;
    Ok(())
}
