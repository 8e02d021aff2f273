//! The units that a bootstrap resamples.

use std::collections::HashMap;

use rand::Rng;
use rand::distributions::Distribution;
use rand_distr::Binomial;
use rand_xoshiro::Xoshiro256PlusPlus;

/// Number of resamples whose statistics are computed together, in the lanes of SIMD registers.
pub const LANES: usize = 16;
/// A value of each of several resamples.
pub type Lanes<T> = [T; LANES];

/// Number of units that are drawn one by one in the time of one binomial variable.
const DRAWS_PER_BINOMIAL: usize = 32;

/// The units that a bootstrap resamples. Only the number of rows of each kind matters to a statistic: for the accuracy, there are two
/// kinds of rows, correct and wrong ones.
#[derive(Debug, Clone)]
pub struct Units {
    /// Number of kinds.
    pub(super) kinds: usize,
    /// The different units: their kinds, and the number of rows of each.
    pub(super) contents: Vec<Vec<(u32, u32)>>,
    /// Content of each unit.
    pub(super) content_of: Vec<u32>,
    /// Number of units of each content.
    pub(super) frequencies: Vec<u32>,
}

impl Units {
    /// Creates units from the rows of each unit and the kind of each row, which is less than `kinds`.
    pub fn new(units: &[Vec<usize>], kind_of_row: &[u32], kinds: usize) -> Self {
        let mut known: HashMap<Vec<(u32, u32)>, u32> = HashMap::new();
        let (mut content_of, mut frequencies) = (Vec::with_capacity(units.len()), Vec::new());
        for rows in units {
            let mut sorted: Vec<u32> = rows.iter().map(|&row| kind_of_row[row]).collect();
            sorted.sort_unstable();
            let content = sorted.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len() as u32)).collect();
            let next = known.len() as u32;
            let content = *known.entry(content).or_insert(next);
            frequencies.resize(known.len(), 0);
            frequencies[content as usize] += 1;
            content_of.push(content);
        }
        let mut contents = vec![Vec::new(); known.len()];
        known.into_iter().for_each(|(content, index)| contents[index as usize] = content);
        Self { kinds, contents, content_of, frequencies }
    }

    /// Returns the number of units.
    pub(super) fn len(&self) -> usize {
        self.content_of.len()
    }

    /// Returns the number of rows of each kind if each content occurs as often as in each of up to [`LANES`] `draws`; 0 in other lanes.
    pub(super) fn counts(&self, draws: &[impl AsRef<[u32]>]) -> Vec<Lanes<u32>> {
        let mut counts = vec![[0; LANES]; self.kinds];
        for (i, content) in self.contents.iter().enumerate() {
            let frequencies: Lanes<u32> =
                std::array::from_fn(|lane| draws.get(lane).map_or(0, |draw| draw.as_ref()[i]));
            for &(kind, rows) in content {
                let counts = &mut counts[kind as usize];
                (0..LANES).for_each(|lane| counts[lane] += frequencies[lane] * rows);
            }
        }
        counts
    }

    /// Draws as many units as there are, with replacement, and returns how often each content is drawn.
    pub(super) fn draw(&self, random: &mut Xoshiro256PlusPlus) -> Vec<u32> {
        let units = self.len();
        let mut drawn = vec![0; self.contents.len()];
        if self.contents.len() == units {
            // All units differ; contents are numbered in the order of the units.
            (0..units).for_each(|_| drawn[random.gen_range(0..units)] += 1);
            return drawn;
        }
        if self.contents.len() > units / DRAWS_PER_BINOMIAL {
            (0..units).for_each(|_| drawn[self.content_of[random.gen_range(0..units)] as usize] += 1);
            return drawn;
        }
        // The frequencies have a multinomial distribution: each, given those before it, a binomial one.
        let (mut left, mut of) = (units as u64, units as u64);
        for (drawn, &frequency) in drawn.iter_mut().zip(&self.frequencies) {
            let frequency = u64::from(frequency);
            let count = match frequency == of {
                true => left,
                false => Binomial::new(left, frequency as f64 / of as f64).expect("a probability").sample(random),
            };
            *drawn = count as u32;
            (left, of) = (left - count, of - frequency);
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn draws_by_content_have_the_moments_of_a_multinomial_distribution() {
        // 400 units of (two rows of kind 0 and one of kind 1), 1590 of one row of kind 2, ten of one row of kind 1.
        let unit_of: Vec<Vec<u32>> = (0..2000)
            .map(|i| {
                if i % 5 == 0 {
                    vec![1, 0, 0]
                } else if i % 200 == 1 {
                    vec![1]
                } else {
                    vec![2]
                }
            })
            .collect();
        let mut rows = 0..;
        let units: Vec<Vec<usize>> = unit_of.iter().map(|unit| rows.by_ref().take(unit.len()).collect()).collect();
        let units = Units::new(&units, &unit_of.concat(), 3);
        let counts = units.counts(&[&units.frequencies]);
        assert_eq!(counts.iter().map(|counts| counts[0]).collect::<Vec<_>>(), [800, 410, 1590]);
        assert!(counts.iter().all(|counts| counts[1..].iter().all(|&count| count == 0)), "lanes without a draw");
        assert_eq!(units.contents.len(), 3);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let drawn: Vec<Vec<f64>> = (0..20_000)
            .map(|_| {
                let drawn = units.draw(&mut random);
                assert_eq!(drawn.iter().sum::<u32>(), 2000);
                drawn.into_iter().map(f64::from).collect()
            })
            .collect();
        let mean = |value: &dyn Fn(&[f64]) -> f64| drawn.iter().map(|drawn| value(drawn)).sum::<f64>() / 20_000.0;
        let probabilities: Vec<f64> = units.frequencies.iter().map(|&f| f64::from(f) / 2000.0).collect();
        for (i, &p) in probabilities.iter().enumerate() {
            let expected = 2000.0 * p;
            assert!((mean(&|drawn| drawn[i]) - expected).abs() < 0.04 * expected.sqrt(), "content {i}");
            for (j, &q) in probabilities.iter().enumerate() {
                let covariance = mean(&|drawn| (drawn[i] - 2000.0 * p) * (drawn[j] - 2000.0 * q));
                let exact = 2000.0 * p * (f64::from(u8::from(i == j)) - q);
                let scale = 2000.0 * (p * (1.0 - p) * q * (1.0 - q)).sqrt();
                assert!((covariance - exact).abs() < 0.04 * scale, "contents {i} and {j}: {covariance} and {exact}");
            }
        }
    }
}
