//! Lines over a common axis, with a legend.

use plotters::backend::DrawingBackend;
use plotters::chart::{ChartBuilder, SeriesLabelPosition};
use plotters::element::{Circle, PathElement};
use plotters::style::{BLACK, Color, FontFamily, IntoFont, RGBColor, WHITE};

use super::{Area, DrawResult, Drawing};

const SIZE: (u32, u32) = (900, 560);
const TITLE_SIZE: u32 = 18;
const LABEL_SIZE: u32 = 14;
const RADIUS: i32 = 4;

/// Colours that are told apart on white.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(70, 70, 70),
];

/// A line, or two of the same colour.
#[derive(Debug)]
pub struct Line {
    /// Stands in the legend.
    pub name: String,
    /// At least one, x rising.
    pub points: Vec<(f64, f64)>,
    /// Drawn pale and thin, without points: what the others are to be compared with.
    pub is_limit: bool,
    /// Lines of a group have the same colour.
    pub group: usize,
}

/// Lines in one chart.
#[derive(Debug)]
pub struct Lines<'a> {
    /// Stands above it.
    pub title: &'a str,
    /// What x is.
    pub x_label: &'a str,
    /// What y is.
    pub y_label: &'a str,
    /// Whether both axes begin at zero, so that lengths are what they are; else they hold the lines and
    /// little more.
    pub from_zero: bool,
    /// At least one.
    pub lines: &'a [Line],
}

impl Lines<'_> {
    /// Where the axes begin.
    fn begins(&self) -> (f64, f64) {
        if self.from_zero {
            return (0.0, 0.0);
        }
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let y = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
        let (x_end, y_end) = self.ends();
        // Room below the lowest point, also where all are at one height.
        (x - 0.02 * (x_end - x), y - 0.05 * (y_end - y))
    }

    /// Where the axes end.
    fn ends(&self) -> (f64, f64) {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = points().map(|point| point.0).fold(0.0, f64::max);
        let y = points().map(|point| point.1).fold(0.0, f64::max);
        if !self.from_zero {
            let least = points().map(|point| point.1).fold(f64::INFINITY, f64::min);
            // The legend is above the lines.
            let room = (y - least).max(1e-3 * y.abs()).max(f64::MIN_POSITIVE);
            return (x.max(1.0), y + 0.5 * room);
        }
        // An axis of no length cannot be drawn.
        (x.max(1.0), (1.08 * y).max(f64::MIN_POSITIVE))
    }
}

impl Drawing for Lines<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        let font = |size: u32| (FontFamily::SansSerif, f64::from(size)).into_font();
        let ((x_begin, y_begin), (x_end, y_end)) = (self.begins(), self.ends());
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, font(TITLE_SIZE))
            .margin(16)
            .x_label_area_size(44)
            .y_label_area_size(74)
            .build_cartesian_2d(x_begin..1.02 * x_end, y_begin..y_end)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(BLACK.mix(0.1))
            .axis_style(BLACK.mix(0.6))
            .label_style(font(LABEL_SIZE))
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| number(*y, y_end - y_begin))
            .draw()?;
        for line in self.lines {
            let colour = COLOURS[line.group % COLOURS.len()];
            let (style, radius) = if line.is_limit {
                (colour.mix(0.4).stroke_width(1), 0)
            } else {
                (colour.stroke_width(2), RADIUS)
            };
            chart
                .draw_series([PathElement::new(line.points.clone(), style)])?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            let points = line.points.iter().filter(|_| radius > 0);
            chart.draw_series(points.map(|&point| Circle::new(point, radius, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .margin(10)
            .label_font(font(LABEL_SIZE))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
    }
}

/// A label of an axis that ends at `end`: as many decimals as tell its ticks apart.
fn number(value: f64, end: f64) -> String {
    let decimals = if end >= 20.0 {
        0
    } else if end >= 2.0 {
        1
    } else {
        3
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_every_point() {
        let line = |points: &[(f64, f64)]| Line {
            name: "x".into(),
            points: points.to_vec(),
            is_limit: false,
            group: 0,
        };
        let lines = [line(&[(0.0, 100.0), (512.0, 50.0)]), line(&[(0.0, 20.0)])];
        let chart = Lines { title: "", x_label: "", y_label: "", from_zero: true, lines: &lines };
        assert_eq!(chart.ends(), (512.0, 108.0));
        let close = Lines { from_zero: false, ..chart };
        let ((x, y), (x_end, y_end)) = (close.begins(), close.ends());
        assert!(x < 0.0 && x_end == 512.0 && (0.0..20.0).contains(&y) && y_end > 100.0);
        // A single point at zero still has axes.
        let lines = [line(&[(0.0, 0.0)])];
        let (x, y) = Lines { lines: &lines, ..chart }.ends();
        assert!(x > 0.0 && y > 0.0);
    }

    #[test]
    fn labels_of_ticks_differ() {
        assert_eq!((number(40.0, 200.0), number(0.4, 2.1)), ("40".into(), "0.4".into()));
        assert_ne!(number(0.010, 0.1), number(0.015, 0.1));
    }
}
