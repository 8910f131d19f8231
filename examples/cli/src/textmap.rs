//! A matrix of weights as a heat map of characters.

use std::fmt::Write;

use crate::terminal;

/// How weights are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shading {
    /// Coloured cells.
    Colours,
    /// Blocks, from light to full.
    Blocks,
    /// Hundredths, in ASCII.
    Digits,
}

/// Room for a token beside its row, and before that for its number.
const LABEL_WIDTH: usize = 16;
const NUMBER_WIDTH: usize = 4;

/// From dark to light, of the 256 colours that terminals have: nothing to 1.
const COLOURS: [u8; 12] = [234, 17, 18, 19, 25, 31, 37, 43, 78, 148, 220, 226];
/// Smallest weight that is shown with each block.
const BLOCKS: [(f32, char); 5] = [(0.6, '█'), (0.3, '▓'), (0.12, '▒'), (0.03, '░'), (0.0, ' ')];

/// Tokens of which a map of `columns` characters has room.
pub fn room(columns: usize, shading: Shading) -> usize {
    let beside = NUMBER_WIDTH + 1 + LABEL_WIDTH + 1;
    (columns.saturating_sub(beside) / cell_width(shading)).max(1)
}

fn cell_width(shading: Shading) -> usize {
    // Numbers need a space between them.
    if shading == Shading::Digits { 3 } else { 2 }
}

/// Rows and columns from token `first` on; `weights` is `[tokens][tokens]`.
pub fn heat_map(labels: &[String], weights: &[f32], first: usize, shading: Shading) -> String {
    let width = cell_width(shading);
    let mut out = " ".repeat(NUMBER_WIDTH + 1 + LABEL_WIDTH + 1);
    for column in first..labels.len() {
        // Writing to a string cannot fail. Column numbers count on from 0 after 99.
        let _ = write!(out, "{:>width$}", column % 100);
    }
    out.push('\n');
    for (row, label) in labels.iter().enumerate().skip(first) {
        let label = terminal::fitted(label, LABEL_WIDTH);
        let _ = write!(out, "{row:>NUMBER_WIDTH$} {label} ");
        for &weight in &weights[row * labels.len()..][first..=row] {
            cell(&mut out, weight, shading);
        }
        if shading == Shading::Colours {
            out.push_str("\x1b[0m");
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

fn cell(out: &mut String, weight: f32, shading: Shading) {
    match shading {
        Shading::Colours => {
            let step = (weight.clamp(0.0, 1.0).sqrt() * (COLOURS.len() - 1) as f32).round();
            let _ = write!(out, "\x1b[48;5;{}m  ", COLOURS[step as usize]);
        }
        Shading::Blocks => {
            let block = BLOCKS.iter().find(|(from, _)| weight >= *from).map_or(' ', |&(_, c)| c);
            out.extend([block; 2]);
        }
        Shading::Digits => {
            let hundredths = (weight * 100.0).round() as u32;
            let _ = match hundredths {
                0 => write!(out, "  ."),
                100 => write!(out, "  1"),
                _ => write!(out, " {hundredths:02}"),
            };
        }
    }
}

/// What the cells mean.
pub fn legend(shading: Shading) -> String {
    match shading {
        Shading::Colours => {
            let mut text = String::from("0 ");
            for colour in COLOURS {
                let _ = write!(text, "\x1b[48;5;{colour}m  ");
            }
            text + "\x1b[0m 1"
        }
        Shading::Blocks => {
            let steps = BLOCKS.iter().rev().skip(1);
            let steps: Vec<String> = steps.map(|(from, c)| format!("{c}{c} {from}")).collect();
            format!("from: {}", steps.join("  "))
        }
        Shading::Digits => "hundredths; . is less than half of one, 1 is all".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEIGHTS: [f32; 9] = [1.0, 0.0, 0.0, 0.4, 0.6, 0.0, 0.001, 0.049, 0.95];

    fn map(first: usize, shading: Shading) -> Vec<String> {
        let labels = ["a", "b", "c"].map(String::from);
        heat_map(&labels, &WEIGHTS, first, shading).lines().map(String::from).collect()
    }

    #[test]
    fn digits_are_hundredths() {
        let lines = map(0, Shading::Digits);
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0].trim_start(), "0  1  2");
        assert_eq!(lines[1], "   0 a                  1");
        assert_eq!(lines[2], "   1 b                 40 60");
        assert_eq!(lines[3], "   2 c                  . 05 95");
    }

    #[test]
    fn blocks_grow_with_the_weight() {
        assert_eq!(map(0, Shading::Blocks)[2], "   1 b                ▓▓██");
        assert_eq!(map(0, Shading::Blocks)[3], "   2 c                  ░░██");
    }

    #[test]
    fn the_last_tokens_can_be_shown_alone() {
        let lines = map(1, Shading::Digits);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "   1 b                 60");
        let tokens = room(80, Shading::Blocks);
        assert_eq!(22 + 2 * tokens, 80);
    }

    #[test]
    fn colours_end_with_their_line() {
        let lines = map(0, Shading::Colours);
        assert!(lines[1..].iter().all(|line| line.ends_with("\x1b[0m")), "{lines:?}");
        assert!(lines[1].contains("\x1b[48;5;226m  "));
    }
}
