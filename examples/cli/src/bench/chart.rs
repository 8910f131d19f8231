//! Tokens per second by the number of tokens before them, as a picture.

use anyhow::Result;

use super::report::{Measured, Report};
use crate::plot::lines::{Line, Lines};
use crate::plot::{Plot, PlotPath};

/// Draws a report.
pub fn draw(path: &PlotPath, report: &Report) -> Result<()> {
    let machine = &report.machine;
    let cpu = machine.cpu.as_deref().unwrap_or("unknown CPU");
    let title = format!("{cpu}, {}, threads: {}", machine.isa, machine.threads);
    let results = [Some(&report.result), report.baseline.as_ref()].into_iter().flatten();
    let lines: Vec<Line> =
        results.enumerate().flat_map(|(group, result)| lines_of(result, group)).collect();
    Plot::create(path)?.draw(&Lines {
        title: &title,
        x_label: "tokens in the cache",
        y_label: "tokens per second",
        from_zero: true,
        lines: &lines,
    })
}

/// What was measured, and what reading weights and cache would allow.
fn lines_of(result: &Measured, group: usize) -> [Line; 2] {
    let depth = |depth: usize| depth as f64;
    let read = result.roofline.read_bytes_per_second;
    let limit = |cache: u64| read / (result.weight_bytes_per_token + cache) as f64;
    let decode = || result.decode.iter();
    let speeds = decode().map(|at| (depth(at.depth), at.decode_tokens_per_second)).collect();
    let limits = decode().map(|at| (depth(at.depth), limit(at.cache_bytes_per_token))).collect();
    // Of a path the file's name is enough.
    let name = result.model.rsplit(['/', '\\']).next().unwrap_or_default();
    let kv = result.kv;
    [
        Line { name: format!("{name}, kv {kv}"), points: speeds, is_limit: false, group },
        Line { name: "if it only read".into(), points: limits, is_limit: true, group },
    ]
}
