//! Maps of points with labels, side by side.

use plotters::backend::DrawingBackend;
use plotters::element::{Circle, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, RGBColor};

use super::{Area, DrawResult, Drawing, text_width, write_text};

const MARGIN: i32 = 16;
const TITLE_SIZE: u32 = 18;
/// Side of a map.
const SIDE: i32 = 620;
/// Between a map's frame and its outermost points: room for labels.
const INNER: i32 = 46;
const RADIUS: i32 = 4;

/// Colours that are told apart on white.
const COLOURS: [RGBColor; 10] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 140, 150),
    RGBColor(127, 127, 127),
    RGBColor(160, 160, 20),
];

/// Where the points are in one map.
#[derive(Debug)]
pub struct Map {
    /// Stands above it.
    pub title: String,
    /// One place for each label.
    pub points: Vec<[f64; 2]>,
}

/// The same points in one map or several.
#[derive(Debug)]
pub struct Scatter<'a> {
    /// Each is as large as the others.
    pub maps: &'a [Map],
    /// What the points are.
    pub labels: &'a [String],
    /// Points of a group have the same colour.
    pub groups: &'a [usize],
}

/// Upper left and lower right corner.
type Corners = [(i32, i32); 2];

impl Scatter<'_> {
    fn label_size(&self) -> u32 {
        match self.labels.len() {
            0..=60 => 14,
            61..=200 => 11,
            _ => 9,
        }
    }

    fn frame(number: usize) -> Corners {
        let left = MARGIN + number as i32 * (SIDE + MARGIN);
        let top = 2 * MARGIN + TITLE_SIZE as i32;
        [(left, top), (left + SIDE, top + SIDE)]
    }

    fn draw_map<B: DrawingBackend>(&self, area: &Area<B>, number: usize) -> DrawResult<B> {
        let map = &self.maps[number];
        let frame = Self::frame(number);
        let corner = Pos::new(HPos::Left, VPos::Top);
        write_text(area, &map.title, TITLE_SIZE, (frame[0].0, MARGIN), corner, false)?;
        area.draw(&Rectangle::new(frame, COLOURS[8].mix(0.6).stroke_width(1)))?;

        let places = places(&map.points, frame);
        for (&place, group) in places.iter().zip(self.groups) {
            let colour = COLOURS[group % COLOURS.len()];
            area.draw(&Circle::new(place, RADIUS, colour.filled()))?;
        }
        let size = self.label_size();
        let mut taken: Vec<Corners> = places.iter().map(|&(x, y)| around(x, y)).collect();
        for (label, &place) in self.labels.iter().zip(&places) {
            let room = (text_width(label, size), size as i32);
            let corners = label_place(place, room, frame, &taken);
            let middle = (corners[0].0, (corners[0].1 + corners[1].1) / 2);
            let left = Pos::new(HPos::Left, VPos::Center);
            write_text(area, label, size, middle, left, false)?;
            taken.push(corners);
        }
        Ok(())
    }
}

fn around(x: i32, y: i32) -> Corners {
    [(x - RADIUS, y - RADIUS), (x + RADIUS, y + RADIUS)]
}

/// Pixels for points, at one scale for both directions, in the middle of the frame.
fn places(points: &[[f64; 2]], frame: Corners) -> Vec<(i32, i32)> {
    let range = |axis: usize| {
        let values = points.iter().map(|point| point[axis]);
        let (low, high) =
            (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max));
        ((low + high) / 2.0, high - low)
    };
    let ((x_middle, x_range), (y_middle, y_range)) = (range(0), range(1));
    let room = f64::from(SIDE - 2 * INNER);
    let scale = room / x_range.max(y_range).max(f64::MIN_POSITIVE);
    let centre = ((frame[0].0 + frame[1].0) / 2, (frame[0].1 + frame[1].1) / 2);
    let pixels = |offset: f64| (offset * scale).clamp(-room, room).round() as i32;
    points
        .iter()
        // Pixels count downwards.
        .map(|[x, y]| (centre.0 + pixels(x - x_middle), centre.1 - pixels(y - y_middle)))
        .collect()
}

/// Where a label covers least of what is there already.
fn label_place(
    (x, y): (i32, i32),
    (width, height): (i32, i32),
    frame: Corners,
    taken: &[Corners],
) -> Corners {
    let gap = RADIUS + 3;
    let (left, right, centre) = (x - gap - width, x + gap, x - width / 2);
    let (above, below, middle) = (y - gap - height, y + gap, y - height / 2);
    let corners = [
        (right, middle),
        (left, middle),
        (centre, above),
        (centre, below),
        (right, above),
        (right, below),
        (left, above),
        (left, below),
    ];
    let candidates = corners.map(|(x, y)| [(x, y), (x + width, y + height)]);
    let covered = |place: &Corners| {
        let outside = area_of(*place) - common(place, &frame);
        taken.iter().map(|other| common(place, other)).sum::<i32>() + 4 * outside
    };
    candidates.into_iter().min_by_key(covered).unwrap_or(candidates[0])
}

fn area_of([(left, top), (right, bottom)]: Corners) -> i32 {
    (right - left) * (bottom - top)
}

/// Area that two rectangles have in common.
fn common(a: &Corners, b: &Corners) -> i32 {
    let width = a[1].0.min(b[1].0) - a[0].0.max(b[0].0);
    let height = a[1].1.min(b[1].1) - a[0].1.max(b[0].1);
    width.max(0) * height.max(0)
}

impl Drawing for Scatter<'_> {
    fn size(&self) -> (u32, u32) {
        let [_, (right, bottom)] = Self::frame(self.maps.len() - 1);
        ((right + MARGIN) as u32, (bottom + MARGIN) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> DrawResult<B> {
        (0..self.maps.len()).try_for_each(|number| self.draw_map(area, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_keep_their_shape_and_stay_inside() {
        let frame = Scatter::frame(0);
        let found = places(&[[0.0, 0.0], [10.0, 0.0], [0.0, 5.0]], frame);
        let [(left, top), (right, bottom)] = frame;
        assert!(found.iter().all(|&(x, y)| left < x && x < right && top < y && y < bottom));
        // Twice as wide as high, and upwards.
        assert_eq!(found[1].0 - found[0].0, 2 * (found[0].1 - found[2].1));
        assert_eq!(found[1].0 - found[0].0, SIDE - 2 * INNER);
        // All in one place is no division by zero.
        let same = places(&[[3.0, 3.0]; 2], frame);
        assert_eq!(same[0], ((left + right) / 2, (top + bottom) / 2));
    }

    #[test]
    fn labels_avoid_each_other_and_the_edge() {
        let frame = Scatter::frame(0);
        let at = (300, 300);
        let first = label_place(at, (40, 14), frame, &[around(at.0, at.1)]);
        let second = label_place(at, (40, 14), frame, &[around(at.0, at.1), first]);
        assert_eq!(common(&first, &second), 0);
        let edge = label_place((frame[1].0 - 5, 300), (40, 14), frame, &[]);
        assert!(edge[1].0 <= frame[1].0);
    }
}
