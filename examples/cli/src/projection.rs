//! Maps of vectors: many numbers for each point become two.
//!
//! Points are vectors at length 1, so that their distances say what cosines say.

use anyhow::Result;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Directions are found by turning a vector towards them so often at most.
const PCA_STEPS: usize = 1000;
/// Steps of gradient descent, as many as scikit-learn takes.
pub const TSNE_STEPS: usize = 1000;
/// Fewest points whose neighbours t-SNE can tell apart.
pub const TSNE_FEWEST: usize = 4;

/// The two directions in which the points differ most (principal component analysis, Pearson
/// 1901): `points` are all of one length, the result is where each is.
pub fn pca(points: &[Vec<f64>]) -> Vec<[f64; 2]> {
    let dims = points.first().map_or(0, Vec::len);
    let mean: Vec<f64> =
        (0..dims).map(|i| points.iter().map(|p| p[i]).sum::<f64>() / points.len() as f64).collect();
    let mut centred: Vec<Vec<f64>> =
        points.iter().map(|p| p.iter().zip(&mean).map(|(x, m)| x - m).collect()).collect();

    let mut places = vec![[0.0; 2]; points.len()];
    for axis in 0..2 {
        let direction = principal_direction(&centred, dims);
        for (point, place) in centred.iter_mut().zip(&mut places) {
            place[axis] = dot(point, &direction);
            // What is left has nothing of this direction.
            point.iter_mut().zip(&direction).for_each(|(x, d)| *x -= place[axis] * d);
        }
    }
    places
}

/// The direction of the largest variance, by power iteration; its largest component is positive.
fn principal_direction(centred: &[Vec<f64>], dims: usize) -> Vec<f64> {
    // Begins with the longest of the points, which cannot be at a right angle to all of them.
    let longest = centred.iter().max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut direction = longest.cloned().unwrap_or_default();
    if !to_unit_length(&mut direction) {
        return vec![0.0; dims];
    }
    for _ in 0..PCA_STEPS {
        let mut next = vec![0.0; dims];
        for point in centred {
            let along = dot(point, &direction);
            next.iter_mut().zip(point).for_each(|(n, x)| *n += along * x);
        }
        if !to_unit_length(&mut next) {
            break;
        }
        let moved = 1.0 - dot(&next, &direction);
        direction = next;
        if moved < 1e-13 {
            break;
        }
    }
    let largest = direction.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    if largest.is_some_and(|largest| largest < 0.0) {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// False if the vector has no direction.
fn to_unit_length(x: &mut [f64]) -> bool {
    let length = dot(x, x).sqrt();
    if length < 1e-150 || !length.is_finite() {
        return false;
    }
    x.iter_mut().for_each(|x| *x /= length);
    true
}

/// Neighbours that a point is likely to have where the user does not say.
pub fn default_perplexity(points: usize) -> f64 {
    largest_perplexity(points).min(30.0)
}

/// More neighbours than this leave t-SNE nothing to tell apart.
pub fn largest_perplexity(points: usize) -> f64 {
    (points.saturating_sub(1) as f64 / 3.0).max(1.0)
}

/// A map on which neighbours stay neighbours (t-SNE, van der Maaten and Hinton 2008), exact.
///
/// `points` are of one length and at least [`TSNE_FEWEST`], `perplexity` is from 1 to
/// [`largest_perplexity`]. `seed` decides where the points start; the same seed gives the same map,
/// as one thread makes all sums in order. `step` is called after each of the [`TSNE_STEPS`].
pub fn tsne(
    points: &[Vec<f64>],
    perplexity: f64,
    seed: u64,
    mut step: impl FnMut() + Send,
) -> Result<Vec<[f64; 2]>> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut random = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    let start: Vec<f64> = (0..2 * points.len()).map(|_| 2e-4 * random()).collect();
    let squared_distance =
        |a: &Vec<f64>, b: &Vec<f64>| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    Ok(pool.install(|| {
        let mut tsne = bhtsne::tSNE::<f64, Vec<f64>>::new(points);
        tsne.perplexity(perplexity)
            .epochs(TSNE_STEPS)
            .initial_embedding(start)
            .epoch_callback(move |_, _| step())
            .exact(squared_distance);
        tsne.embedding().as_chunks::<2>().0.to_vec()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three heaps of points, far from each other, in 20 dimensions.
    fn heaps() -> Vec<Vec<f64>> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut noise = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
        let mut point = |heap: usize| {
            (0..20).map(|i| f64::from(u8::from(i % 3 == heap)) * 4.0 + noise()).collect()
        };
        (0..24).map(|i| point(i % 3)).collect()
    }

    fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
        (a[0] - b[0]).hypot(a[1] - b[1])
    }

    /// Whether every point's nearest neighbour is of its own heap.
    fn keeps_heaps(places: &[[f64; 2]]) -> bool {
        (0..places.len()).all(|i| {
            let others = (0..places.len()).filter(|&j| j != i);
            let to = |&j: &usize| distance(places[i], places[j]);
            others.min_by(|a, b| to(a).total_cmp(&to(b))).unwrap() % 3 == i % 3
        })
    }

    #[test]
    fn neighbours_stay_neighbours() {
        let points = heaps();
        assert!(keeps_heaps(&pca(&points)));
        let mut steps = 0;
        let map = tsne(&points, default_perplexity(24), 7, || steps += 1).unwrap();
        assert!(keeps_heaps(&map));
        assert_eq!(steps, TSNE_STEPS);
    }

    #[test]
    fn a_seed_gives_the_same_map_and_another_one_another() {
        let points = heaps();
        let map = |seed| tsne(&points, 5.0, seed, || {}).unwrap();
        assert_eq!(map(7), map(7));
        assert_ne!(map(7), map(8));
    }

    #[test]
    fn pca_finds_the_directions_of_largest_variance() {
        // On a plane in space: 3 along (1, 1, 0), 1 along (0, 0, 1), away from the origin.
        let points: Vec<Vec<f64>> = (0..40)
            .map(|i| f64::from(i) * 0.7)
            .map(|t| vec![5.0 + 3.0 * t.sin(), 5.0 + 3.0 * t.sin(), t.cos()])
            .collect();
        let places = pca(&points);
        let mean = |axis: usize| places.iter().map(|p| p[axis]).sum::<f64>() / 40.0;
        assert!(mean(0).abs() < 1e-9 && mean(1).abs() < 1e-9);
        for (i, j) in [(0, 1), (3, 17), (20, 39)] {
            // The plane is flat, so no distance is lost.
            let d: f64 = points[i].iter().zip(&points[j]).map(|(a, b)| (a - b).powi(2)).sum();
            assert!((distance(places[i], places[j]) - d.sqrt()).abs() < 1e-6);
        }
        let variance = |axis: usize| places.iter().map(|p| p[axis].powi(2)).sum::<f64>();
        assert!(variance(0) > 5.0 * variance(1));
    }

    #[test]
    fn points_that_are_all_the_same_are_no_error() {
        assert_eq!(pca(&vec![vec![1.0, 2.0]; 3]), [[0.0; 2]; 3]);
        assert_eq!(pca(&[vec![1.0]]), [[0.0; 2]]);
    }

    #[test]
    fn the_fewest_points_are_enough() {
        let points = heaps();
        for n in TSNE_FEWEST..9 {
            let map = tsne(&points[..n], largest_perplexity(n), 0, || {}).unwrap();
            assert!(map.iter().flatten().all(|x| x.is_finite()));
        }
    }
}
