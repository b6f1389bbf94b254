//! Latent semantic analysis: the directions in which the terms of a collection vary together.
//!
//! A truncated singular value decomposition by randomised subspace iteration (Halko, Martinsson and
//! Tropp, "Finding structure with randomness", 2011, algorithm 4.4), from a fixed seed: the same
//! collection gives the same model.

/// More directions than are asked for are followed, so that those asked for are good.
const OVERSAMPLING: usize = 12;
/// How often the matrix is applied both ways.
const ITERATIONS: usize = 4;
/// Variances that are smaller than the largest by this are noise.
const NOISE: f64 = 1e-10;
/// Sweeps after which the diagonalisation is exact enough; it stops earlier when it is.
const SWEEPS: usize = 12;

/// Documents by terms, with weights.
pub struct Matrix {
    /// For each document its terms.
    pub rows: Vec<Vec<(u32, f32)>>,
    /// How many terms there are.
    pub terms: usize,
}

/// The first directions of a collection.
pub struct Directions {
    /// How many.
    pub count: usize,
    /// For each term, one after the other, its coordinates.
    pub terms: Vec<f32>,
}

/// The strongest directions of a collection: at most as many as are asked for.
pub fn directions(matrix: &Matrix, count: usize) -> Directions {
    let documents = matrix.rows.len();
    let width = (count + OVERSAMPLING).min(documents).min(matrix.terms);
    let mut basis = Dense::random(documents, width);
    for _ in 0..ITERATIONS {
        basis = matrix.documents_of(&matrix.terms_of(&basis));
        let (axes, variances) = diagonal(&basis.gram());
        basis = basis.turned(&axes, &variances, usize::MAX);
    }
    let terms = matrix.terms_of(&basis);
    let (axes, variances) = diagonal(&terms.gram());
    let terms = terms.turned(&axes, &variances, count);
    Directions {
        count: terms.width,
        terms: terms.cells,
    }
}

impl Matrix {
    /// What terms have in common with columns over the documents.
    fn terms_of(&self, documents: &Dense) -> Dense {
        let mut terms = Dense::zero(self.terms, documents.width);
        for (at, row) in self.rows.iter().enumerate() {
            for &(term, weight) in row {
                add(terms.row_mut(term as usize), weight, documents.row(at));
            }
        }
        terms
    }

    /// What documents have in common with columns over the terms.
    fn documents_of(&self, terms: &Dense) -> Dense {
        let mut documents = Dense::zero(self.rows.len(), terms.width);
        for (at, row) in self.rows.iter().enumerate() {
            for &(term, weight) in row {
                add(documents.row_mut(at), weight, terms.row(term as usize));
            }
        }
        documents
    }
}

/// Adds a multiple of one row to another.
pub fn add(row: &mut [f32], factor: f32, other: &[f32]) {
    for (cell, more) in row.iter_mut().zip(other) {
        *cell += factor * more;
    }
}

/// A dense matrix, row by row.
struct Dense {
    width: usize,
    cells: Vec<f32>,
}

impl Dense {
    fn zero(height: usize, width: usize) -> Self {
        Self {
            width,
            cells: vec![0.0; height * width],
        }
    }

    /// Signs from a generator with a fixed seed (splitmix64).
    fn random(height: usize, width: usize) -> Self {
        let mut state = 0_u64;
        let sign = |cell: &mut f32| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *cell = if bits >> 63 == 0 { 1.0 } else { -1.0 };
        };
        let mut dense = Self::zero(height, width);
        dense.cells.iter_mut().for_each(sign);
        dense
    }

    fn row(&self, at: usize) -> &[f32] {
        &self.cells[at * self.width..][..self.width]
    }

    fn row_mut(&mut self, at: usize) -> &mut [f32] {
        &mut self.cells[at * self.width..][..self.width]
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.cells.chunks_exact(self.width.max(1))
    }

    /// The products of its columns with each other.
    fn gram(&self) -> Vec<Vec<f64>> {
        let mut gram = vec![vec![0.0; self.width]; self.width];
        for row in self.rows() {
            for (sums, &left) in gram.iter_mut().zip(row) {
                // Most rows of a sparse collection are mostly nothing.
                if left != 0.0 {
                    for (sum, &right) in sums.iter_mut().zip(row) {
                        *sum += f64::from(left) * f64::from(right);
                    }
                }
            }
        }
        gram
    }

    /// Its columns along the axes with a variance worth the name, each of length one; at most so many.
    fn turned(&self, axes: &[Vec<f64>], variances: &[f64], most: usize) -> Self {
        let floor = variances.first().map_or(0.0, |largest| largest * NOISE);
        let kept = variances.iter().take(most).take_while(|v| **v > floor);
        let scaled: Vec<Vec<f32>> = axes
            .iter()
            .zip(kept)
            .map(|(axis, variance)| axis.iter().map(|x| (x / variance.sqrt()) as f32).collect())
            .collect();
        let cells = self.rows().flat_map(|row| {
            let along = |axis: &Vec<f32>| row.iter().zip(axis).map(|(x, y)| x * y).sum::<f32>();
            scaled.iter().map(along).collect::<Vec<_>>()
        });
        Self {
            width: scaled.len(),
            cells: cells.collect(),
        }
    }
}

/// The axes of a symmetric matrix and their variances, the largest first, by Jacobi's rotations.
fn diagonal(matrix: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let size = matrix.len();
    let mut matrix = matrix.to_vec();
    // Row by row the axes, so that a rotation turns two neighbouring pieces of memory.
    let mut axes = vec![vec![0.0; size]; size];
    for (at, axis) in axes.iter_mut().enumerate() {
        axis[at] = 1.0;
    }
    let scale: f64 = (0..size).map(|at| matrix[at][at]).sum();
    for _ in 0..SWEEPS {
        let mut rest = 0.0;
        for p in 0..size {
            for q in p + 1..size {
                let off = matrix[p][q];
                rest += off * off;
                if off.abs() <= scale * 1e-18 {
                    continue;
                }
                let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cosine = 1.0 / (t * t + 1.0).sqrt();
                let sine = t * cosine;
                rotate(&mut matrix, p, q, cosine, sine);
                for row in &mut matrix {
                    let (x, y) = (row[p], row[q]);
                    row[p] = cosine * x - sine * y;
                    row[q] = sine * x + cosine * y;
                }
                rotate(&mut axes, p, q, cosine, sine);
            }
        }
        if rest.sqrt() <= scale * 1e-14 {
            break;
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| matrix[*b][*b].total_cmp(&matrix[*a][*a]));
    let variances = order.iter().map(|at| matrix[*at][*at].max(0.0)).collect();
    let axes = order
        .iter()
        .map(|at| std::mem::take(&mut axes[*at]))
        .collect();
    (axes, variances)
}

/// Turns two rows.
fn rotate(rows: &mut [Vec<f64>], p: usize, q: usize, cosine: f64, sine: f64) {
    let (head, tail) = rows.split_at_mut(q);
    for (x, y) in head[p].iter_mut().zip(&mut tail[0]) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_directions_of_two_topics_are_the_topics() {
        // Terms 0 to 2 stand together, and 3 to 4; the second topic has fewer documents.
        let rows = (0..30)
            .map(|at| match at % 3 {
                0 => vec![(0, 1.0), (1, 1.0)],
                1 => vec![(1, 1.0), (2, 1.0)],
                _ => vec![(3, 1.0), (4, 1.0)],
            })
            .collect();
        let found = directions(&Matrix { rows, terms: 5 }, 2);
        assert_eq!(found.count, 2);
        let term = |at: usize| [found.terms[at * 2].abs(), found.terms[at * 2 + 1].abs()];
        // Of 10 x [[1,1,0],[1,2,1],[0,1,1]] the largest axis is (1,2,1)/sqrt 6, with 30; the other topic's has 20.
        assert!((term(1)[0] - 2.0 / 6_f32.sqrt()).abs() < 1e-3);
        assert!(term(0)[1] < 1e-3 && term(3)[0] < 1e-3);
        assert!((term(4)[1] - 0.5_f32.sqrt()).abs() < 1e-3);
    }

    #[test]
    fn nothing_has_no_direction() {
        for rows in [vec![], vec![vec![]; 3], vec![vec![(0, 0.0)]; 3]] {
            assert_eq!(directions(&Matrix { rows, terms: 1 }, 4).count, 0);
        }
    }
}
