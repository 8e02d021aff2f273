//! Selects the training, validation and test clips of each year's model.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use super::{ClipCounts, MinClips};
use crate::dataset::DatasetSplits;
use crate::manifest::{Manifest, Split};

/// The years with a model, and the skipped years.
#[derive(Debug, Default)]
pub struct YearPlan {
    /// Years with enough clips in ascending order, with their clips.
    pub years: Vec<(i32, DatasetSplits)>,
    /// The other years, in ascending order.
    pub skipped: Vec<SkippedYear>,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// A year with too few clips for a model.
#[derive(Debug)]
pub struct SkippedYear {
    /// The year.
    pub year: i32,
    /// What is missing.
    pub reason: String,
    /// Its clips.
    pub clips: DatasetSplits,
}

impl std::fmt::Display for SkippedYear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "skipping {}: {}", self.year, self.reason)
    }
}

/// Returns the years of clips by id, for clips with a year.
pub fn years_by_id(manifest: &Manifest) -> HashMap<&str, i32> {
    manifest.clips.iter().filter_map(|clip| Some((clip.id.as_str(), clip.year?))).collect()
}

/// Returns the years whose training clips the model of `year` uses: the year alone, or `window` years starting `window / 2`
/// years earlier. For a window of 10 years: [y − 5, y + 4].
pub fn training_years(year: i32, window: Option<i32>) -> RangeInclusive<i32> {
    let window = window.unwrap_or(1);
    let first = year - window / 2;
    first..=first + window - 1
}

/// Counts the labeled clips of each split.
pub fn count_clips(data: &DatasetSplits) -> ClipCounts {
    ClipCounts { train: data.train.len(), val: data.val.len(), test: data.test.len() }
}

/// Selects the clips of each year of the manifest: training clips of the [`training_years`], validation and test clips of the
/// year itself, so that models with different windows are evaluated on the same clips. The classes are those of all years.
pub fn plan(data: &DatasetSplits, manifest: &Manifest, window: Option<i32>, min_clips: MinClips) -> YearPlan {
    let year_of = years_by_id(manifest);
    let years: BTreeSet<i32> = year_of.values().copied().collect();
    let mut plan = YearPlan::default();
    for year in years {
        let training_years = training_years(year, window);
        let mut part = data.filter(|split, id| match (split, year_of.get(id)) {
            (Some(Split::Train), Some(clip_year)) => training_years.contains(clip_year),
            (_, clip_year) => clip_year == Some(&year),
        });
        let ClipCounts { train, val, test } = count_clips(&part);
        let shortages: Vec<String> =
            [("training", train, min_clips.train), ("validation", val, min_clips.val), ("test", test, min_clips.test)]
                .into_iter()
                .filter(|(_, count, minimum)| count < minimum)
                .map(|(split, count, minimum)| format!("{count} {split} clips, the minimum is {minimum}"))
                .collect();
        let training = part.training_set();
        let reason = match (shortages.is_empty(), training.len()) {
            (false, _) => Some(shortages.join("; ")),
            (true, left @ 0..2) => Some(format!("resampling keeps {left} of {train} training clips")),
            _ => None,
        };
        if let Some(reason) = reason {
            plan.skipped.push(SkippedYear { year, reason, clips: part });
            continue;
        }
        let columns = training.targets.columns().into_iter().zip(&training.classes);
        let unseen: Vec<&str> =
            columns.filter(|(column, _)| column.iter().all(|&t| t == 0.0)).map(|(_, class)| class.as_str()).collect();
        if !unseen.is_empty() {
            let names = unseen.join(", ");
            part.warnings.push(format!("no training clip has {names}: the model cannot predict it"));
        }
        plan.years.push((year, part));
    }
    let labeled = manifest.clips.iter().filter(|clip| !clip.labels.is_empty());
    let without_year = labeled.filter(|clip| clip.year.is_none()).count();
    if without_year > 0 {
        plan.warnings
            .push(format!("{without_year} labeled clips have no year: only the model for all clips uses them"));
    }
    plan
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::dataset::{Dataset, Task};
    use crate::manifest::Clip;
    use crate::manifest::imbalance::Resample;

    /// Two training clips, one validation clip and one test clip in each of the years 2000 to 2003, but no test clip in 2003.
    /// The label `early` occurs in 2000 and 2001 only.
    fn four_years() -> (DatasetSplits, Manifest) {
        let mut clips = Vec::new();
        for year in 2000..=2003 {
            for (i, split) in [Split::Train, Split::Train, Split::Val, Split::Test].into_iter().enumerate() {
                if (year, split) == (2003, Split::Test) {
                    continue;
                }
                let labels: &[&str] = if year < 2002 { &["any", "early"] } else { &["any"] };
                clips.push(Clip {
                    id: format!("{year}-{i}"),
                    labels: labels.iter().map(|label| label.to_string()).collect(),
                    split: Some(split),
                    year: Some(year),
                    ..Clip::default()
                });
            }
        }
        let part = |split: Split| {
            let part: Vec<&Clip> = clips.iter().filter(|clip| clip.split == Some(split)).collect();
            let has = |i: usize, label: &str| f32::from(part[i].labels.iter().any(|own| own == label));
            Dataset {
                ids: part.iter().map(|clip| clip.id.clone()).collect(),
                groups: vec![None; part.len()],
                rows: Array2::from_shape_fn((part.len(), 2), |(i, _)| i as f32).into(),
                offsets: (0..=part.len()).collect(),
                targets: Array2::from_shape_fn((part.len(), 2), |(i, c)| has(i, ["any", "early"][c])),
                classes: ["any", "early"].map(String::from).to_vec(),
            }
        };
        let [train, val, test] = [Split::Train, Split::Val, Split::Test].map(part);
        let unlabeled = test.select(&[]);
        let data = DatasetSplits {
            task: Task::MultiLabel,
            train,
            resampled: None,
            val,
            test,
            unlabeled,
            warnings: Vec::new(),
        };
        let manifest = Manifest { source: "posters.csv".into(), clips, warnings: vec![], sha256: String::new() };
        (data, manifest)
    }

    const MIN_CLIPS: MinClips = MinClips { train: 2, val: 1, test: 1 };

    #[test]
    fn windows_extend_the_training_clips_only() {
        let (data, manifest) = four_years();
        let alone = plan(&data, &manifest, None, MIN_CLIPS);
        assert_eq!(alone.years.iter().map(|(year, _)| *year).collect::<Vec<_>>(), [2000, 2001, 2002]);
        let skipped: Vec<String> = alone.skipped.iter().map(|skipped| skipped.to_string()).collect();
        assert_eq!(skipped, ["skipping 2003: 0 test clips, the minimum is 1"]);
        assert_eq!(alone.years[1].1.train.ids, ["2001-0", "2001-1"]);
        let decades = plan(&data, &manifest, Some(10), MIN_CLIPS);
        assert_eq!(count_clips(&decades.years[2].1), ClipCounts { train: 8, val: 1, test: 1 });
        assert_eq!(decades.years[2].1.test.ids, ["2002-3"]);
        assert_eq!(plan(&data, &manifest, Some(10), MinClips { train: 9, ..MIN_CLIPS }).years.len(), 0);
    }

    #[test]
    fn all_years_have_the_same_labels_and_unseen_ones_are_reported() {
        let (data, manifest) = four_years();
        let plan = plan(&data, &manifest, None, MIN_CLIPS);
        for (year, part) in &plan.years {
            assert_eq!(part.train.classes, data.train.classes);
            let warned = part.warnings.iter().any(|warning| warning.contains("no training clip has early"));
            assert_eq!(warned, *year == 2002, "{:?}", part.warnings);
        }
    }

    #[test]
    fn years_use_the_clips_resampled_from_all_years() {
        let (mut data, manifest) = four_years();
        // The sets {any} and {any, early} have 4 of 8 clips each; a maximum share of a quarter keeps 2 of each.
        let resampled = data.resample(Resample::Compose { low: 0.0, high: 0.25 }, 0);
        assert_eq!((resampled.indices.len(), data.training_set().len(), data.train.len()), (4, 4, 8));
        let plan = plan(&data, &manifest, Some(10), MIN_CLIPS);
        assert_eq!((plan.years[0].1.training_set().len(), plan.years[0].1.train.len()), (4, 8));
    }

    #[test]
    fn windows_start_half_their_length_earlier() {
        assert_eq!(training_years(2004, Some(10)), 1999..=2008);
        assert_eq!(training_years(2004, Some(3)), 2003..=2005);
        assert_eq!((training_years(2004, Some(1)), training_years(2004, None)), (2004..=2004, 2004..=2004));
    }
}
