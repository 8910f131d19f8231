//! A matrix of weights as a heat map, with a label for each row and column.

use plotters::backend::DrawingBackend;
use plotters::element::Rectangle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor};

use super::picture::shade;
use super::{Area, DrawResult, Drawing, text_width, write_text};

/// Space around everything, and between its parts.
const MARGIN: i32 = 16;
const TITLE_SIZE: u32 = 18;
/// Cells below this size have no room for a label.
const SMALLEST_LABELLED: i32 = 9;
const LONGEST_LABEL: i32 = 150;
/// Smaller weights are not told from none.
const FAINTEST: f32 = 0.001;
/// The scale beside the map: a strip, and numbers.
const SCALE_WIDTH: i32 = 14;
const SCALE_HEIGHT: i32 = 120;
const SCALE_SIZE: u32 = 12;
const TICKS: [f32; 5] = [1.0, 0.5, 0.2, 0.05, 0.0];

/// Weights from 0 to 1 between tokens: row `i` says where token `i` looks.
#[derive(Debug)]
pub struct HeatMap<'a> {
    /// What is shown.
    pub title: &'a str,
    /// One for each token.
    pub labels: &'a [String],
    /// `[tokens][tokens]`; what is right of the diagonal is the future, and not drawn.
    pub weights: &'a [f32],
}

impl HeatMap<'_> {
    /// Width and height of a token's cell.
    fn cell(&self) -> i32 {
        (900 / self.labels.len() as i32).clamp(2, 28)
    }

    fn label_size(&self) -> Option<u32> {
        let cell = self.cell();
        (cell >= SMALLEST_LABELLED).then_some((cell as u32).clamp(10, 16))
    }

    /// Width of the labels beside the rows, and height of those above the columns.
    fn label_width(&self) -> i32 {
        let Some(size) = self.label_size() else { return 0 };
        let widest = self.labels.iter().map(|label| text_width(label, size)).max().unwrap_or(0);
        widest.min(LONGEST_LABEL) + 6
    }

    fn origin(&self) -> (i32, i32) {
        let labels = self.label_width();
        (MARGIN + labels, 2 * MARGIN + TITLE_SIZE as i32 + labels)
    }

    fn side(&self) -> i32 {
        self.cell() * self.labels.len() as i32
    }

    fn draw_labels<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let Some(size) = self.label_size() else { return Ok(()) };
        let (cell, (left, top)) = (self.cell(), self.origin());
        for (i, label) in self.labels.iter().enumerate() {
            let label = shortened(label, size);
            let middle = i as i32 * cell + cell / 2;
            let (right, centre) = (Pos::new(HPos::Right, VPos::Center), VPos::Center);
            write_text(area, &label, size, (left - 5, top + middle), right, false)?;
            let above = Pos::new(HPos::Left, centre);
            write_text(area, &label, size, (left + middle, top - 5), above, true)?;
        }
        Ok(())
    }

    fn draw_cells<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (cell, (left, top), n) = (self.cell(), self.origin(), self.labels.len());
        let square = |row: usize, first: usize, last: usize| {
            let (x, y) = (left + first as i32 * cell, top + row as i32 * cell);
            [(x, y), (left + last as i32 * cell, y + cell)]
        };
        for (row, weights) in self.weights.chunks_exact(n).enumerate() {
            for (column, &weight) in weights[..=row].iter().enumerate() {
                // White is there already, and most of a long text's weights are next to nothing.
                if weight >= FAINTEST {
                    let square = square(row, column, column + 1);
                    area.draw(&Rectangle::new(square, colour(weight).filled()))?;
                }
            }
            if row + 1 < n {
                let future = Rectangle::new(square(row, row + 1, n), FUTURE.filled());
                area.draw(&future)?;
            }
        }
        let frame = [(left, top), (left + self.side(), top + self.side())];
        area.draw(&Rectangle::new(frame, FRAME.stroke_width(1)))
    }

    /// The scale goes by the square root, as most weights are small.
    fn draw_scale<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let (left, top) = self.origin();
        let left = left + self.side() + MARGIN;
        for y in 0..SCALE_HEIGHT {
            let root = 1.0 - y as f32 / (SCALE_HEIGHT - 1) as f32;
            let line = [(left, top + y), (left + SCALE_WIDTH, top + y + 1)];
            area.draw(&Rectangle::new(line, colour(root * root).filled()))?;
        }
        let frame = [(left, top), (left + SCALE_WIDTH, top + SCALE_HEIGHT)];
        area.draw(&Rectangle::new(frame, FRAME.stroke_width(1)))?;
        for tick in TICKS {
            let y = top + ((1.0 - tick.sqrt()) * SCALE_HEIGHT as f32).round() as i32;
            let (at, pos) = ((left + SCALE_WIDTH + 4, y), Pos::new(HPos::Left, VPos::Center));
            write_text(area, &tick.to_string(), SCALE_SIZE, at, pos, false)?;
        }
        Ok(())
    }
}

fn colour(weight: f32) -> RGBColor {
    shade(weight.max(0.0).sqrt())
}

const FUTURE: RGBColor = RGBColor(236, 236, 236);
const FRAME: RGBColor = RGBColor(120, 120, 120);

/// A label that is not wider than there is room.
fn shortened(label: &str, size: u32) -> String {
    if text_width(label, size) <= LONGEST_LABEL {
        return label.into();
    }
    let mut short = String::new();
    for c in label.chars() {
        short.push(c);
        if text_width(&short, size) > LONGEST_LABEL - size as i32 {
            break;
        }
    }
    short + "…"
}

impl Drawing for HeatMap<'_> {
    fn size(&self) -> (u32, u32) {
        let (left, top) = self.origin();
        let widest = TICKS.iter().map(|tick| text_width(&tick.to_string(), SCALE_SIZE)).max();
        let scale = MARGIN + SCALE_WIDTH + 4 + widest.unwrap_or(0) + MARGIN;
        let title = 2 * MARGIN + text_width(self.title, TITLE_SIZE);
        let width = (left + self.side() + scale).max(title);
        (width as u32, (top + self.side().max(SCALE_HEIGHT) + MARGIN) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let corner = Pos::new(HPos::Left, VPos::Top);
        write_text(area, self.title, TITLE_SIZE, (MARGIN, MARGIN), corner, false)?;
        self.draw_labels(area)?;
        self.draw_cells(area)?;
        self.draw_scale(area)
    }
}
