//! Which clips a year's model learns from, and which it is measured on.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use super::{Clips, MinClips};
use crate::dataset::DatasetSplits;
use crate::manifest::{Manifest, Split};

/// The years that get a model, and those that do not.
#[derive(Debug, Default)]
pub struct Plan {
    /// The years with enough clips, rising, each with its clips.
    pub years: Vec<(i32, DatasetSplits)>,
    /// The years without, in words.
    pub skipped: Vec<String>,
    /// What else the user should know.
    pub warnings: Vec<String>,
}

/// The year of each clip that has one, by id.
pub fn of(manifest: &Manifest) -> HashMap<&str, i32> {
    manifest.clips.iter().filter_map(|clip| Some((clip.id.as_str(), clip.year?))).collect()
}

/// The years whose training clips the model of `year` learns from: the year alone, or `window` of them from `window / 2`
/// before on; of 10, [y − 5, y + 4].
pub fn span(year: i32, window: Option<i32>) -> RangeInclusive<i32> {
    let window = window.unwrap_or(1);
    let first = year - window / 2;
    first..=first + window - 1
}

/// Labeled clips of each split.
pub fn count(data: &DatasetSplits) -> Clips {
    Clips { train: data.train.len(), val: data.val.len(), test: data.test.len() }
}

/// The clips of each year of the manifest: training clips of the year's [`span`], validation and test clips of the year
/// itself, so that models of any window are measured on the same clips. The classes are those of all years.
pub fn plan(data: &DatasetSplits, manifest: &Manifest, window: Option<i32>, min_clips: MinClips) -> Plan {
    let year_of = of(manifest);
    let years: BTreeSet<i32> = year_of.values().copied().collect();
    let mut plan = Plan::default();
    for year in years {
        let span = span(year, window);
        let mut part = data.filter(|split, id| match (split, year_of.get(id)) {
            (Some(Split::Train), Some(of_clip)) => span.contains(of_clip),
            (_, of_clip) => of_clip == Some(&year),
        });
        let Clips { train, val, test } = count(&part);
        let lacking: Vec<String> =
            [("training", train, min_clips.train), ("validation", val, min_clips.val), ("test", test, min_clips.test)]
                .into_iter()
                .filter(|(_, there, wanted)| there < wanted)
                .map(|(split, there, wanted)| format!("{there} {split} clips of at least {wanted}"))
                .collect();
        let training = part.training_set();
        let why = match (lacking.is_empty(), training.len()) {
            (false, _) => Some(lacking.join(", ")),
            (true, left @ 0..2) => Some(format!("resampling left {left} of its {train} training clips")),
            _ => None,
        };
        if let Some(why) = why {
            plan.skipped.push(format!("{year} is skipped: {why}"));
            continue;
        }
        let columns = training.targets.columns().into_iter().zip(&training.classes);
        let unseen: Vec<&str> =
            columns.filter(|(column, _)| column.iter().all(|&t| t == 0.0)).map(|(_, class)| class.as_str()).collect();
        if !unseen.is_empty() {
            let names = unseen.join(", ");
            part.warnings.push(format!("no training clip has {names}: the model has only learnt to deny it"));
        }
        plan.years.push((year, part));
    }
    let labeled = manifest.clips.iter().filter(|clip| !clip.labels.is_empty());
    let without = labeled.filter(|clip| clip.year.is_none()).count();
    if without > 0 {
        plan.warnings.push(format!("{without} labeled clips have no year: only the model of all clips knows them"));
    }
    plan
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::dataset::Dataset;
    use crate::dataset::Task;
    use crate::manifest::Clip;
    use crate::manifest::imbalance::Resample;

    /// Two training clips, one of val and one of test in every year of 2000 to 2003, but no test clip in 2003; the label
    /// `early` is of 2000 and 2001 only.
    fn decade() -> (DatasetSplits, Manifest) {
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
            let of: Vec<&Clip> = clips.iter().filter(|clip| clip.split == Some(split)).collect();
            let has = |i: usize, label: &str| f32::from(of[i].labels.iter().any(|own| own == label));
            Dataset {
                ids: of.iter().map(|clip| clip.id.clone()).collect(),
                groups: vec![None; of.len()],
                rows: Array2::from_shape_fn((of.len(), 2), |(i, _)| i as f32),
                offsets: (0..=of.len()).collect(),
                targets: Array2::from_shape_fn((of.len(), 2), |(i, c)| has(i, ["any", "early"][c])),
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
    fn a_year_has_its_own_clips_and_a_window_lends_training_clips() {
        let (data, manifest) = decade();
        let alone = plan(&data, &manifest, None, MIN_CLIPS);
        assert_eq!(alone.years.iter().map(|(year, _)| *year).collect::<Vec<_>>(), [2000, 2001, 2002]);
        assert_eq!(alone.skipped, ["2003 is skipped: 0 test clips of at least 1"]);
        assert_eq!(alone.years[1].1.train.ids, ["2001-0", "2001-1"]);
        let decades = plan(&data, &manifest, Some(10), MIN_CLIPS);
        assert_eq!(count(&decades.years[2].1), Clips { train: 8, val: 1, test: 1 });
        assert_eq!(decades.years[2].1.test.ids, ["2002-3"]);
        assert_eq!(plan(&data, &manifest, Some(10), MinClips { train: 9, ..MIN_CLIPS }).years.len(), 0);
    }

    #[test]
    fn labels_are_the_same_in_all_years_and_unseen_ones_are_named() {
        let (data, manifest) = decade();
        let plan = plan(&data, &manifest, None, MIN_CLIPS);
        for (year, part) in &plan.years {
            assert_eq!(part.train.classes, data.train.classes);
            let warned = part.warnings.iter().any(|warning| warning.contains("no training clip has early"));
            assert_eq!(warned, *year == 2002, "{:?}", part.warnings);
        }
    }

    #[test]
    fn years_share_what_was_resampled_once_for_all() {
        let (mut data, manifest) = decade();
        // Of 8 clips the sets {any} and {any, early} have 4 each; at most a quarter leaves 2 of each.
        let resampled = data.resample(Resample::Compose { low: 0.0, high: 0.25 }, 0);
        assert_eq!((resampled.indices.len(), data.training_set().len(), data.train.len()), (4, 4, 8));
        let plan = plan(&data, &manifest, Some(10), MIN_CLIPS);
        assert_eq!((plan.years[0].1.training_set().len(), plan.years[0].1.train.len()), (4, 8));
    }

    #[test]
    fn a_decade_reaches_from_five_years_before_to_four_after() {
        assert_eq!(span(2004, Some(10)), 1999..=2008);
        assert_eq!(span(2004, Some(3)), 2003..=2005);
        assert_eq!((span(2004, Some(1)), span(2004, None)), (2004..=2004, 2004..=2004));
    }
}
