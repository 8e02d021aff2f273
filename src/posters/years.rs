//! Which clips a year's model learns from, and which it is measured on.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use super::Clips;
use crate::dataset::Joined;
use crate::manifest::{Manifest, Split};
use crate::recipe::Least;

/// The years that get a model, and those that do not.
#[derive(Debug, Default)]
pub struct Plan {
    /// The years with enough clips, rising, each with its clips.
    pub years: Vec<(i32, Joined)>,
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

/// Labelled clips of each split.
pub fn count(data: &Joined) -> Clips {
    Clips { train: data.train.len(), val: data.val.len(), test: data.test.len() }
}

/// The clips of each year of the manifest: training clips of the year's [`span`], validation and test clips of the year
/// itself, so that models of any window are measured on the same clips. The classes are those of all years.
pub fn plan(data: &Joined, manifest: &Manifest, window: Option<i32>, least: Least) -> Plan {
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
            [("training", train, least.train), ("validation", val, least.val), ("test", test, least.test)]
                .into_iter()
                .filter(|(_, there, wanted)| there < wanted)
                .map(|(split, there, wanted)| format!("{there} {split} clips of at least {wanted}"))
                .collect();
        let training = part.training();
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
    let labelled = manifest.clips.iter().filter(|clip| !clip.labels.is_empty());
    let without = labelled.filter(|clip| clip.year.is_none()).count();
    if without > 0 {
        plan.warnings.push(format!("{without} labelled clips have no year: only the model of all clips knows them"));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decade_reaches_from_five_years_before_to_four_after() {
        assert_eq!(span(2004, Some(10)), 1999..=2008);
        assert_eq!(span(2004, Some(3)), 2003..=2005);
        assert_eq!((span(2004, Some(1)), span(2004, None)), (2004..=2004, 2004..=2004));
    }
}
