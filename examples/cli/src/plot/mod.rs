//! Pictures: SVG or PNG, by the name of the file.
//!
//! A picture is a [`Drawing`]: something that draws itself on an area of a given size, with
//! whichever backend of plotters is behind it. Letters in PNG come from a font inside of the
//! program (`font/`), letters in SVG from the font of whoever looks at it.

use std::path::{Path, PathBuf};

#[cfg(feature = "plot")]
pub mod heatmap;
#[cfg(feature = "plot")]
pub mod lines;
#[cfg(feature = "plot")]
mod picture;
#[cfg(feature = "plot")]
pub mod scatter;

#[cfg(feature = "plot")]
pub use picture::{Area, DrawResult, Drawing, Plot, text_width, write_text};

#[cfg(feature = "plot")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// Name of a file for a picture: its ending says what kind it is.
#[derive(Clone, Debug)]
pub struct PlotPath {
    path: PathBuf,
    #[cfg(feature = "plot")]
    format: Format,
}

impl PlotPath {
    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads the name of a file for a picture from the command line.
#[cfg(feature = "plot")]
pub fn parse_path(text: &str) -> Result<PlotPath, String> {
    let path = PathBuf::from(text);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let format = match ending.to_ascii_lowercase().as_str() {
        "svg" => Format::Svg,
        "png" => Format::Png,
        _ => return Err("a picture is .svg or .png; end the file's name so".into()),
    };
    Ok(PlotPath { path, format })
}

/// Says that there are no pictures.
#[cfg(not(feature = "plot"))]
pub fn parse_path(_: &str) -> Result<PlotPath, String> {
    Err("this program was built without pictures (cargo feature `plot`); use --npy or --json"
        .into())
}
