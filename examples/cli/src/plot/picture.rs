//! A picture that becomes a file.

use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::style::text_anchor::Pos;
use plotters::style::{
    BLACK, Color, FontFamily, FontStyle, FontTransform, IntoTextStyle, RGBColor, WHITE,
    register_font,
};

use super::{Format, PlotPath};
use crate::outfile::OutFile;

/// What a drawing draws on: pixels from the upper left corner.
pub type Area<B> = DrawingArea<B, Shift>;

/// How drawing ended.
pub type DrawResult<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

/// Something that can be drawn.
pub trait Drawing {
    /// Width and height, in pixels.
    fn size(&self) -> (u32, u32);
    /// Draws on a white area of that size.
    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B>;
}

/// A file for a picture.
#[derive(Debug)]
pub struct Plot {
    file: OutFile,
    format: Format,
}

impl Plot {
    /// Begins the file.
    pub fn create(path: &PlotPath) -> Result<Self> {
        Ok(Self { file: OutFile::create(&path.path)?, format: path.format })
    }

    /// Draws, and gives the file its name.
    pub fn draw(mut self, drawing: &impl Drawing) -> Result<()> {
        load_font();
        let bytes = match self.format {
            Format::Svg => svg(drawing)?,
            Format::Png => png(drawing)?,
        };
        self.file.write(&bytes)?;
        self.file.finish()
    }
}

fn svg(drawing: &impl Drawing) -> Result<Vec<u8>> {
    let mut text = String::new();
    draw_on(SVGBackend::with_string(&mut text, drawing.size()), drawing)?;
    Ok(text.into_bytes())
}

fn png(drawing: &impl Drawing) -> Result<Vec<u8>> {
    let (width, height) = drawing.size();
    let mut pixels = vec![0; 3 * width as usize * height as usize];
    draw_on(BitMapBackend::with_buffer(&mut pixels, (width, height)), drawing)?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(bytes)
}

fn draw_on<B: DrawingBackend>(backend: B, drawing: &impl Drawing) -> Result<()> {
    let area = backend.into_drawing_area();
    let draw = || {
        area.fill(&WHITE)?;
        drawing.draw(&area)?;
        area.present()
    };
    draw().map_err(|error| anyhow!("the picture cannot be drawn: {error}"))
}

const FONT: &str = "sans-serif";

/// Gives plotters its font, without which it cannot even measure a text.
fn load_font() {
    static LOADED: Once = Once::new();
    LOADED.call_once(|| {
        let font = include_bytes!("font/DejaVuSans-subset.ttf");
        assert!(register_font(FONT, FontStyle::Normal, font).is_ok(), "the font is a font");
    });
}

/// A text's width in pixels, at a size in pixels.
pub fn text_width(text: &str, size: u32) -> i32 {
    load_font();
    let style = (FontFamily::SansSerif, f64::from(size)).into_text_style(&(0, 0));
    style.font.layout_box(text).map_or(0, |((left, _), (right, _))| right - left)
}

/// Writes a text of a size in pixels, so that `at` is at its anchor `pos`; `upwards` turns it.
pub fn write_text<B: DrawingBackend>(
    area: &Area<B>,
    text: &str,
    size: u32,
    at: (i32, i32),
    pos: Pos,
    upwards: bool,
) -> DrawResult<B> {
    let turn = if upwards { FontTransform::Rotate270 } else { FontTransform::None };
    let style = (FontFamily::SansSerif, f64::from(size)).into_text_style(area).pos(pos);
    area.draw_text(text, &style.color(&BLACK.mix(0.85)).transform(turn), at)
}

/// Between white (0) and dark blue (1), evenly darker to the eye.
pub fn shade(value: f32) -> RGBColor {
    const STOPS: [[f32; 3]; 5] = [
        [255.0, 255.0, 255.0],
        [198.0, 219.0, 239.0],
        [107.0, 174.0, 214.0],
        [33.0, 113.0, 181.0],
        [8.0, 48.0, 107.0],
    ];
    let at = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let first = (at as usize).min(STOPS.len() - 2);
    let part = at - first as f32;
    let [r, g, b] = std::array::from_fn(|i| {
        (STOPS[first][i] + part * (STOPS[first + 1][i] - STOPS[first][i])).round() as u8
    });
    RGBColor(r, g, b)
}
