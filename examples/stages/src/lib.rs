//! What the five programs share: which model to look at, and drawing a small picture.
//!
//! The programs are in `src/bin/`, to be read beside `docs/how-it-works.md`:
//! `cargo run --release -p pocketgpt-stages --bin tokens`.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::PathBuf;

/// The error of a program that anything may stop.
pub type Error = Box<dyn std::error::Error>;

/// The file to look at: the `.pgpt` file that the command line names, or the bundled model.
pub fn model_path() -> PathBuf {
    let bundled = || concat!(env!("OUT_DIR"), "/model.pgpt").into();
    std::env::args_os().nth(1).map_or_else(bundled, PathBuf::from)
}

/// Makes numbers of any size into shares that are together 1.
pub fn softmax(x: &[f32]) -> Vec<f32> {
    let max = x.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    let powers: Vec<f32> = x.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// A token as a label: its spaces are to be seen.
pub fn label(token: &[u8]) -> String {
    String::from_utf8_lossy(token).replace(' ', "·").replace('\n', "↵")
}

/// A picture: rectangles and letters, in SVG.
#[derive(Debug)]
pub struct Picture {
    width: usize,
    height: usize,
    body: String,
}

impl Picture {
    /// An empty, white picture, in pixels.
    pub fn new(width: usize, height: usize) -> Self {
        let mut picture = Self { width, height, body: String::new() };
        picture.rectangle(0, 0, (width, height), WHITE);
        picture
    }

    /// A rectangle from its upper left corner.
    pub fn rectangle(&mut self, x: usize, y: usize, (width, height): (usize, usize), rgb: [u8; 3]) {
        let [r, g, b] = rgb;
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.body,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"rgb({r},{g},{b})\"/>"
        );
    }

    /// A text; `x` is where it starts, or its `middle`, or its `end`. `y` is its base line.
    pub fn text(&mut self, x: usize, y: usize, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.body,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" xml:space=\"preserve\">{text}</text>"
        );
    }

    /// A matrix with a label for each row; darker is more. Values are from 0 to 1.
    pub fn matrix(
        &mut self,
        (left, top): (usize, usize),
        cell: usize,
        labels: &[String],
        rows: &[Vec<f32>],
    ) {
        for (i, (label, row)) in labels.iter().zip(rows).enumerate() {
            self.text(left - 6, top + i * cell + cell / 2 + 5, "end", label);
            for (j, &value) in row.iter().enumerate() {
                // Nothing is drawn on white paper in white.
                if value > 0.005 {
                    let (x, y) = (left + j * cell, top + i * cell);
                    self.rectangle(x, y, (cell - 1, cell - 1), shade(value));
                }
            }
        }
    }

    /// Writes the file into the current folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, name: &str) -> std::io::Result<()> {
        let Self { width, height, body } = self;
        let svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"14\">\n{body}</svg>\n"
        );
        std::fs::write(name, svg)?;
        println!("\n{name} is the picture.");
        Ok(())
    }
}

/// Paper.
pub const WHITE: [u8; 3] = [255, 255, 255];

/// From white (0) to dark blue (1).
pub fn shade(value: f32) -> [u8; 3] {
    let value = value.clamp(0.0, 1.0);
    [(8.0, 247.0), (64.0, 191.0), (129.0, 126.0)]
        .map(|(dark, more)| (dark + more * (1.0 - value)).round() as u8)
}
