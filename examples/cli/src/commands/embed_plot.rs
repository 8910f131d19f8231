//! `pocketgpt embed --plot`

use std::path::Path;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::embed::Vector;
use crate::plot::{self, PlotPath};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Projection {
    /// Neighbours stay neighbours; distances mean little
    Tsne,
    /// The two directions in which the vectors differ most
    Pca,
    /// Both, side by side
    Both,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Plotting")]
pub struct PlotArgs {
    /// Draw a map of the vectors (.svg or .png)
    #[arg(long, value_name = "FILE", value_parser = plot::parse_path)]
    plot: Option<PlotPath>,
    /// How many numbers become two
    #[arg(long, value_enum, requires = "plot", default_value_t = Projection::Both)]
    projection: Projection,
    /// Neighbours that t-SNE expects a vector to have [default: a third of the others, at most 30]
    #[arg(long, value_name = "P", requires = "plot")]
    perplexity: Option<f64>,
    /// Number that the random beginning of t-SNE follows from
    #[arg(long, value_name = "S", requires = "plot", default_value_t = 0)]
    seed: u64,
}

impl PlotArgs {
    pub fn path(&self) -> Option<&Path> {
        self.plot.as_ref().map(PlotPath::path)
    }
}

/// Draws the maps that were asked for.
#[cfg(feature = "plot")]
pub fn draw(args: &PlotArgs, layer: Option<usize>, vectors: &[Vector]) -> Result<()> {
    use crate::output;
    use crate::plot::Plot;
    use crate::plot::scatter::Scatter;

    let Some(path) = &args.plot else { return Ok(()) };
    let maps = maps(args, layer, vectors)?;
    let labels: Vec<String> = vectors.iter().map(|vector| vector.label.clone()).collect();
    let groups: Vec<usize> = vectors.iter().map(|vector| vector.group).collect();
    let scatter = Scatter { maps: &maps, labels: &labels, groups: &groups };
    Plot::create(path)?.draw(&scatter)?;
    let titles: Vec<&str> = maps.iter().map(|map| map.title.as_str()).collect();
    let (name, vectors) = (path.path().display(), vectors.len());
    output::note(format_args!("{name}: {vectors} vectors, {}", titles.join(" | ")));
    Ok(())
}

#[cfg(feature = "plot")]
fn maps(
    args: &PlotArgs,
    layer: Option<usize>,
    vectors: &[Vector],
) -> Result<Vec<crate::plot::scatter::Map>> {
    use anyhow::bail;

    use crate::output;
    use crate::plot::scatter::Map;
    use crate::projection::{
        TSNE_FEWEST, TSNE_STEPS, default_perplexity, largest_perplexity, pca, tsne,
    };

    let source = layer.map_or("wte".into(), |layer| format!("layer {layer}"));
    let points: Vec<Vec<f64>> = vectors.iter().map(Vector::unit).collect();
    let mut maps = Vec::new();
    if args.projection != Projection::Pca {
        let (count, largest) = (points.len(), largest_perplexity(points.len()));
        let perplexity = args.perplexity.unwrap_or_else(|| default_perplexity(count));
        if count < TSNE_FEWEST {
            if args.projection == Projection::Tsne {
                bail!(
                    "t-SNE needs {TSNE_FEWEST} vectors and there are {count}; give more, or use --projection pca"
                );
            }
            output::note(format_args!(
                "t-SNE needs {TSNE_FEWEST} vectors: the map is by PCA alone"
            ));
        } else if !(1.0..=largest).contains(&perplexity) {
            bail!(
                "--perplexity {perplexity}: for {count} vectors it is from 1 to {largest:.1}; give one of these"
            );
        } else {
            let bar = output::progress_bar(TSNE_STEPS, "steps of t-SNE");
            let seed = args.seed;
            let places = tsne(&points, perplexity, seed, || bar.inc(1))?;
            bar.finish_and_clear();
            let title = format!("{source}: t-SNE, perplexity {perplexity:.0}, seed {seed}");
            maps.push(Map { title, points: places });
        }
    }
    if args.projection != Projection::Tsne {
        maps.push(Map { title: format!("{source}: PCA"), points: pca(&points) });
    }
    Ok(maps)
}

/// Without pictures there is nothing to draw: [`plot::parse_path`] has refused.
#[cfg(not(feature = "plot"))]
pub fn draw(_: &PlotArgs, _: Option<usize>, _: &[Vector]) -> Result<()> {
    Ok(())
}
