//! The comparison as one picture.

use std::fmt::Write;

use super::Comparison;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const HEIGHT: f64 = 320.0;
const COLOURS: [&str; 4] = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728"];
const NAMES: [&str; 4] = ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"];

/// Bars: what each matrix gives in the file; the line: the residual stream.
pub(super) fn svg(comparison: &Comparison) -> String {
    let snrs = comparison.matrices.iter().map(|m| m.stream_output_snr_db);
    let all = snrs.chain(comparison.stream_snr_db.iter().copied());
    let high = all.flatten().fold(10.0, f64::max);
    let high = (high / 10.0).ceil() * 10.0;
    let y = |snr: f64| TOP + HEIGHT * (1.0 - snr.clamp(0.0, high) / high);
    let layers = comparison.stream_snr_db.len() - 1;
    let slot = (WIDTH - LEFT - 20.0) / layers as f64;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let mut put = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">",
        TOP + HEIGHT + 90.0
    ));
    put("<rect width=\"100%\" height=\"100%\" fill=\"white\"/>".into());
    put(format!(
        "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}: signal to noise against {}, dB</text>",
        escaped(&comparison.file),
        escaped(&comparison.reference)
    ));
    for tick in (0..=high as u32).step_by(10) {
        let at = y(tick.into());
        put(format!(
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
            WIDTH - 20.0
        ));
        put(format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>",
            LEFT - 8.0,
            at + 4.0
        ));
    }
    for (i, matrix) in comparison.matrices.iter().enumerate() {
        // A matrix that lost nothing reaches the top.
        let top = y(matrix.stream_output_snr_db.unwrap_or(high));
        let (layer, place) = (i / 4, i % 4);
        let x = LEFT + slot * (layer as f64 + 0.12 + 0.19 * place as f64);
        put(format!(
            "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"><title>{}</title></rect>",
            0.17 * slot,
            TOP + HEIGHT - top,
            COLOURS[place],
            escaped(&matrix.name)
        ));
    }
    let mut points = String::new();
    for (i, snr) in comparison.stream_snr_db.iter().enumerate() {
        let _ = write!(points, "{:.1},{:.1} ", LEFT + slot * i as f64, y(snr.unwrap_or(high)));
    }
    put(format!(
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"black\" stroke-width=\"2\"/>"
    ));
    for layer in 0..layers {
        let x = LEFT + slot * (layer as f64 + 0.5);
        put(format!(
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">h.{layer}</text>",
            TOP + HEIGHT + 18.0
        ));
    }
    let legend = TOP + HEIGHT + 44.0;
    for (i, (name, colour)) in NAMES.iter().zip(COLOURS).enumerate() {
        let x = LEFT + 120.0 * i as f64;
        put(format!(
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>",
            legend - 10.0
        ));
        put(format!("<text x=\"{}\" y=\"{legend}\">{name}</text>", x + 18.0));
    }
    let x = LEFT + 480.0;
    put(format!(
        "<line x1=\"{x}\" x2=\"{}\" y1=\"{1}\" y2=\"{1}\" stroke=\"black\" stroke-width=\"2\"/>",
        x + 14.0,
        legend - 4.0
    ));
    put(format!(
        "<text x=\"{}\" y=\"{legend}\">residual stream at the borders of blocks</text>",
        x + 20.0
    ));
    put(format!(
        "<text x=\"{LEFT}\" y=\"{}\">mean KL divergence {:.6} over {} positions, most probable token the same at {:.2} %</text>",
        legend + 26.0,
        comparison.divergence.mean_kl_divergence,
        comparison.divergence.positions,
        100.0 * comparison.divergence.top1_agreement
    ));
    put("</svg>".into());
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
