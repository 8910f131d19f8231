//! Logits, hidden states and attentions of the bundled model equal those of transformers.

use pocketgpt_quantize::Encoding;
use pocketgpt_runtime::parallel::Serial;
use pocketgpt_runtime::session::{Session, Tap};
use pocketgpt_runtime::workspace::SessionOptions;
use pocketgpt_tests::{Converted, Golden, bundled, max_difference, repository, with_session};

/// Collects everything that can be looked at.
#[derive(Default)]
pub struct Collect {
    /// `[n_layer + 1][tokens][n_embd]`
    pub hidden: Vec<Vec<f32>>,
    /// `[n_layer][n_head][tokens]`: weights of the visible positions
    pub attention: Vec<Vec<Vec<Vec<f32>>>>,
}

impl Tap for Collect {
    fn hidden(&mut self, layer: usize, _: usize, rows: &[f32]) {
        self.hidden.resize_with(self.hidden.len().max(layer + 1), Vec::new);
        self.hidden[layer].extend(rows);
    }
    fn wants_attention(&mut self, _: usize) -> bool {
        true
    }
    fn attention(&mut self, layer: usize, head: usize, position: usize, weights: &[f32]) {
        assert_eq!(weights.len(), position + 1);
        self.attention.resize_with(self.attention.len().max(layer + 1), Vec::new);
        let heads = &mut self.attention[layer];
        heads.resize_with(heads.len().max(head + 1), Vec::new);
        assert_eq!(heads[head].len(), position);
        heads[head].push(weights.to_vec());
    }
}

/// Compares hidden states and attentions with the golden ones; returns the largest differences.
pub fn compare_inside(
    model: &pocketgpt_runtime::model::Gpt2<'_>,
    seen: &Collect,
    golden: &Golden,
    tokens: usize,
) -> (f32, f32) {
    let config = model.config();
    let (layers, heads) = (config.n_layer as usize, config.n_head as usize);
    let n_embd = config.n_embd as usize;
    let hidden = golden.f32s("hidden_states");
    let mut worst_hidden = 0.0f32;
    for (layer, golden) in hidden.chunks(tokens * n_embd).enumerate() {
        // The last entry of transformers' is behind ln_f.
        let mut ours = seen.hidden[layer].clone();
        if layer == layers {
            Session::final_norm(model, &seen.hidden[layer], &mut ours);
        }
        worst_hidden = worst_hidden.max(max_difference(&ours, golden));
    }
    let attentions = golden.f32s("attentions");
    assert_eq!(attentions.len(), layers * heads * tokens * tokens);
    let mut worst_attention = 0.0f32;
    for (i, golden) in attentions.chunks(tokens).enumerate() {
        let (layer, head, position) = (i / tokens / heads, i / tokens % heads, i % tokens);
        let ours = &seen.attention[layer][head][position];
        worst_attention = worst_attention.max(max_difference(ours, &golden[..=position]));
    }
    (worst_hidden, worst_attention)
}

#[test]
fn everything_inside_equals_transformers() {
    let golden = Golden::open(&repository("tests/data/golden/forward.safetensors"));
    let file = Converted::new(&bundled(), Encoding::F32);
    let model = file.model();
    let ids = golden.ids("input_ids");
    let options =
        SessionOptions { logit_rows: 7, batch: 40, ..SessionOptions::new(model.config()) };
    let mut seen = Collect::default();
    let mut logits = Vec::new();
    with_session(model, &options, |session| {
        session.feed_tapped(&ids, &Serial, &mut seen).unwrap();
        session.truncate(0);
        session.feed_all(&ids, &Serial, &mut |_, row| logits.extend(row)).unwrap();
    });
    let (hidden, attention) = compare_inside(&model, &seen, &golden, ids.len());
    let logits = max_difference(&logits, &golden.f32s("logits"));
    println!("largest differences: logits {logits:e}, hidden {hidden:e}, attention {attention:e}");
    assert!(logits < 1e-4 && hidden < 3e-5 && attention < 3e-5);
}

#[test]
fn the_full_context_equals_transformers() {
    let golden = Golden::open(&repository("tests/data/golden/forward.safetensors"));
    let file = Converted::new(&bundled(), Encoding::F32);
    let model = file.model();
    let ids = golden.ids("full_context_ids");
    assert_eq!(ids.len(), 512);
    let mut argmax = Vec::new();
    let mut last = Vec::new();
    with_session(model, &SessionOptions::new(model.config()), |session| {
        let mut each = |_: usize, row: &[f32]| {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
            argmax.push(best.unwrap().0 as u32);
            last = row.to_vec();
        };
        session.feed_all(&ids, &Serial, &mut each).unwrap();
        assert_eq!(session.remaining(), 0);
    });
    assert_eq!(argmax, golden.ids("full_context_argmax"));
    assert!(max_difference(&last, &golden.f32s("full_context_last_logits")) < 1e-3);
}
