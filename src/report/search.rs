//! The report of a search over settings of a classifier.

use std::collections::BTreeMap;
use std::path::Path;

use super::markdown::percent;
use super::metrics::{SearchSummary, Spread};
use super::svg::{Anchor, Drawing, PALETTE, format_tick, ticks, truncate};
use super::table::Table;
use super::{write, write_records};
use crate::error::Result;

/// Files of a search.
pub(super) const FILES: [&str; 3] = ["best.toml", "search.csv", "search.svg"];
/// Most trials in the table of the report; search.csv has all.
const MOST_ROWS: usize = 15;
/// Ratio of the largest and the smallest value from which an axis is logarithmic.
const LOGARITHMIC: f64 = 50.0;

/// The trials of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchReport {
    /// Text of best.toml: the recipe with the selected values and without the search.
    pub recipe: String,
    /// Names of the settings.
    pub names: Vec<String>,
    /// The trials; at least one has scores.
    pub trials: Vec<TrialReport>,
    /// Index of the selected trial.
    pub best: usize,
    /// Number of folds of the cross-validation that scored the trials; `None` if they were scored on val.
    pub folds: Option<usize>,
    /// `accuracy` or `mAP`.
    pub score_name: &'static str,
    /// Index of the trial that was selected without a fold, (repetition, fold); empty if the search is not nested.
    pub of_fold: Vec<Vec<usize>>,
}

/// A trial of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct TrialReport {
    /// Values of the settings.
    pub values: Vec<String>,
    /// Scores in [0, 1], of val or of each fold; or why there are none.
    pub scores: std::result::Result<Vec<f64>, String>,
    /// Duration of the fits in seconds.
    pub seconds: f64,
}

impl TrialReport {
    fn mean(&self) -> Option<f64> {
        Some(Spread::of(self.scores.as_ref().ok()?).mean)
    }

    /// Returns the standard error of the mean over the folds; `None` for one score.
    fn standard_error(&self) -> Option<f64> {
        let scores = self.scores.as_ref().ok().filter(|scores| scores.len() > 1)?;
        Some(Spread::of(scores).std / (scores.len() as f64).sqrt())
    }
}

impl SearchReport {
    /// Returns the object of metrics.json.
    pub(super) fn summary(&self) -> SearchSummary {
        let best = &self.trials[self.best];
        SearchSummary {
            trials: self.trials.len(),
            scored_on: self.scored_on(),
            score: best.mean().unwrap_or(f64::NAN),
            values: self.names.iter().cloned().zip(best.values.iter().cloned()).collect(),
        }
    }

    /// Describes the result in one line.
    pub fn one_line(&self) -> String {
        let SearchSummary { trials, scored_on, score, values } = self.summary();
        let values: Vec<String> = values.into_iter().map(|(name, value)| format!("{name} {value}")).collect();
        format!(
            "search of {trials} trials on {scored_on}: {}, {} {}",
            values.join(", "),
            self.score_name,
            percent(score)
        )
    }

    /// Writes best.toml, search.csv and search.svg.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        write(&dir.join("best.toml"), &self.recipe)?;
        write_records(&dir.join("search.csv"), self.records())?;
        write(&dir.join("search.svg"), &self.plot())
    }

    /// Describes the search for REPORT.md.
    pub(super) fn markdown(&self) -> String {
        let count = self.trials.len();
        let mut text = format!("{count} trials, scored by the {} on {}. ", self.score_name, self.scored_on());
        text.push_str(match (self.folds, self.of_fold.is_empty()) {
            (_, false) => {
                "The settings for the clips of a fold were selected without that fold, so the validation metrics are those of the whole \
                 procedure. "
            }
            _ => "The validation metrics are those of the selected trial, which makes them too high; the test split had no part in it. ",
        });
        text.push_str("search.csv has all trials.\n\n");
        text.push_str(&self.table().markdown());
        if !self.of_fold.is_empty() {
            text.push_str(&format!("\nSelected without a fold: {}.\n", self.selected_of_folds()));
        }
        let failed = self.trials.iter().filter(|trial| trial.scores.is_err()).count();
        if failed > 0 {
            text.push_str(&format!("\n{failed} trials failed; search.csv has the reasons.\n"));
        }
        text.push_str("\n![scores of the trials](search.svg)\n");
        text
    }

    fn scored_on(&self) -> String {
        match self.folds {
            None => "val".into(),
            Some(folds) => format!("{folds} folds of train and val"),
        }
    }

    /// Returns the indices of the trials, the best first, and failed ones last.
    fn ranking(&self) -> Vec<usize> {
        let mut ranking: Vec<usize> = (0..self.trials.len()).collect();
        let key = |&trial: &usize| self.trials[trial].mean().unwrap_or(f64::NEG_INFINITY);
        ranking.sort_by(|a, b| key(b).total_cmp(&key(a)).then((*b == self.best).cmp(&(*a == self.best))));
        ranking
    }

    fn table(&self) -> Table {
        let header = self.names.iter().cloned().chain([self.score_name.to_string()]).collect();
        let row = |trial: usize| {
            let trial = &self.trials[trial];
            let score = match (trial.mean(), trial.standard_error()) {
                (Some(mean), Some(error)) => format!("{:.1} ± {:.1} %", 100.0 * mean, 100.0 * error),
                (Some(mean), None) => percent(mean),
                (None, _) => "failed".into(),
            };
            trial.values.iter().cloned().chain([score]).collect()
        };
        let shown: Vec<usize> = self.ranking().into_iter().take(MOST_ROWS).collect();
        let best = shown.iter().position(|trial| *trial == self.best);
        Table { header, left: 0, rows: shown.into_iter().map(row).collect(), best }
    }

    fn records(&self) -> Vec<Vec<String>> {
        let parts = self.folds.unwrap_or(1);
        let of_folds =
            if self.folds.is_some() { (0..parts).map(|fold| format!("fold_{fold}")).collect() } else { vec![] };
        let mut records = vec![
            [
                self.names.clone(),
                vec![self.score_name.into()],
                if of_folds.is_empty() { vec![] } else { vec!["standard_error".into()] },
                of_folds,
                ["seconds", "selected", "error"].map(String::from).to_vec(),
            ]
            .concat(),
        ];
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for (i, trial) in self.trials.iter().enumerate() {
            let mut record = trial.values.clone();
            record.push(number(trial.mean()));
            if self.folds.is_some() {
                record.push(number(trial.standard_error()));
                let score = |fold: usize| number(trial.scores.as_ref().ok().map(|scores| scores[fold]));
                record.extend((0..parts).map(score));
            }
            record.push(format!("{:.3}", trial.seconds));
            record.push((i == self.best).to_string());
            record.push(trial.scores.as_ref().err().cloned().unwrap_or_default());
            records.push(record);
        }
        records
    }

    /// Describes which trials were selected without a fold, and how often.
    fn selected_of_folds(&self) -> String {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for &trial in self.of_fold.iter().flatten() {
            *counts.entry(trial).or_default() += 1;
        }
        let describe = |(trial, count): (usize, usize)| {
            let pairs =
                self.names.iter().zip(&self.trials[trial].values).map(|(name, value)| format!("{name} {value}"));
            format!("{} ({count} ×)", pairs.collect::<Vec<_>>().join(", "))
        };
        counts.into_iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Plots the scores against the values of each setting, one panel each, and marks the selected trial.
    fn plot(&self) -> String {
        let (panel, height, left, top, gap) = (300.0, 210.0, 64.0, 50.0, 40.0);
        let columns = self.names.len().clamp(1, 3);
        let lines = self.names.len().div_ceil(columns);
        let width = left + columns as f64 * (panel + gap);
        let mut drawing = Drawing::new(width, top + lines as f64 * (height + 70.0), "scores of the trials");
        drawing.text(
            12.0,
            20.0,
            14.0,
            "ink",
            Anchor::Start,
            0.0,
            &format!("{} on {}", self.score_name, self.scored_on()),
        );
        let bounds = self.trials.iter().filter_map(|trial| {
            let error = trial.standard_error().unwrap_or(0.0);
            trial.mean().filter(|mean| mean.is_finite()).map(|mean| [mean - error, mean + error])
        });
        let (low, high) = bounds.flatten().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        let marks = ticks(low, high, 5);
        let (low, high) = (marks[0], *marks.last().expect("ticks are never empty"));
        for (i, name) in self.names.iter().enumerate() {
            let x0 = left + (i % columns) as f64 * (panel + gap);
            let y0 = top + (i / columns) as f64 * (height + 70.0);
            let y = |score: f64| y0 + height * (1.0 - (score - low) / (high - low));
            for &mark in &marks {
                drawing.line((x0, y(mark)), (x0 + panel, y(mark)), "grid", 1.0, "");
                if i % columns == 0 {
                    let text = format!("{} %", format_tick(100.0 * mark));
                    drawing.text(x0 - 7.0, y(mark), 11.0, "dim", Anchor::End, 0.0, &text);
                }
            }
            let axis = Axis::new(self.trials.iter().map(|trial| trial.values[i].as_str()));
            let x = |value: &str| x0 + 10.0 + (panel - 20.0) * axis.position(value);
            for (position, label) in axis.labels() {
                let x = x0 + 10.0 + (panel - 20.0) * position;
                drawing.text(x, y0 + height + 14.0, 11.0, "dim", Anchor::Middle, 0.0, &truncate(&label, 12));
            }
            drawing.text(x0 + panel / 2.0, y0 + height + 34.0, 12.0, "ink", Anchor::Middle, 0.0, name);
            let mut points: Vec<(f64, f64, usize)> = (0..self.trials.len())
                .filter_map(|trial| {
                    let mean = self.trials[trial].mean().filter(|mean| mean.is_finite())?;
                    Some((x(&self.trials[trial].values[i]), mean, trial))
                })
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            if self.names.len() == 1 {
                let line: Vec<(f64, f64)> = points.iter().map(|&(x, mean, _)| (x, y(mean))).collect();
                drawing.polyline(&line, PALETTE[0], "");
            }
            for (x, mean, trial) in points {
                let report = &self.trials[trial];
                if let Some(error) = report.standard_error() {
                    drawing.line((x, y(mean - error)), (x, y(mean + error)), "rule", 1.0, "");
                }
                let pairs = self.names.iter().zip(&report.values).map(|(name, value)| format!("{name} {value}"));
                let tooltip = format!("{}: {}", pairs.collect::<Vec<_>>().join(", "), percent(mean));
                drawing.marker(x, y(mean), 7.0, 0, PALETTE[0], &tooltip);
                if trial == self.best {
                    drawing.marker(x, y(mean), 13.0, 4, PALETTE[1], &tooltip);
                }
            }
        }
        drawing.finish()
    }
}

/// The axis of a setting's values.
enum Axis {
    /// Numbers between the ends.
    Numbers { low: f64, high: f64, logarithmic: bool },
    /// Evenly spaced names.
    Names(Vec<String>),
}

impl Axis {
    fn new<'a>(values: impl Iterator<Item = &'a str> + Clone) -> Self {
        let numbers: Option<Vec<f64>> = values.clone().map(|value| value.parse().ok()).collect();
        let ends = numbers.map(|numbers| {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            (low, numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max))
        });
        match ends {
            Some((low, high)) if low < high => {
                Self::Numbers { low, high, logarithmic: low > 0.0 && high / low >= LOGARITHMIC }
            }
            _ => {
                let mut names: Vec<String> = vec![];
                for value in values {
                    if names.iter().all(|name| name != value) {
                        names.push(value.into());
                    }
                }
                Self::Names(names)
            }
        }
    }

    /// Returns the position of a value, in [0, 1].
    fn position(&self, value: &str) -> f64 {
        match self {
            Self::Numbers { low, high, logarithmic } => {
                let value = value.parse().unwrap_or(*low);
                match logarithmic {
                    true => (f64::ln(value) - low.ln()) / (high.ln() - low.ln()),
                    false => (value - low) / (high - low),
                }
            }
            Self::Names(names) => {
                let index = names.iter().position(|name| name == value).unwrap_or(0);
                (index as f64 + 0.5) / names.len() as f64
            }
        }
    }

    /// Returns positions and texts of the labels.
    fn labels(&self) -> Vec<(f64, String)> {
        let label = |value: f64, text: String| (self.position(&value.to_string()), text);
        match self {
            Self::Numbers { low, high, logarithmic: true } => {
                let (first, last) = (low.log10().ceil() as i32, high.log10().floor() as i32);
                let step = ((last - first) / 6 + 1) as usize;
                (first..=last).step_by(step).map(|power| label(10f64.powi(power), format!("1e{power}"))).collect()
            }
            Self::Numbers { low, high, .. } => {
                let marks = ticks(*low, *high, 5).into_iter().filter(|mark| (*low..=*high).contains(mark));
                marks.map(|mark| label(mark, format_tick(mark))).collect()
            }
            Self::Names(names) => names.iter().map(|name| (self.position(name), name.clone())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(folds: Option<usize>, trials: Vec<TrialReport>, of_fold: Vec<Vec<usize>>) -> SearchReport {
        let names = vec!["alpha".into(), "class-weight".into()];
        SearchReport { recipe: "a = 1\n".into(), names, trials, best: 1, folds, score_name: "accuracy", of_fold }
    }

    fn trial(values: [&str; 2], scores: std::result::Result<Vec<f64>, String>) -> TrialReport {
        TrialReport { values: values.map(String::from).to_vec(), scores, seconds: 0.5 }
    }

    #[test]
    fn trials_are_ranked_and_the_selected_one_is_highlighted() {
        let trials = vec![
            trial(["0.1", "none"], Ok(vec![0.5, 0.7])),
            trial(["10", "none"], Ok(vec![0.7, 0.7])),
            trial(["1000", "balanced"], Err("the weights diverged".into())),
        ];
        let report = report(Some(2), trials, vec![vec![1, 0]]);
        let text = report.markdown();
        let table = "| alpha | class-weight | accuracy |\n|-:|-:|-:|\n| **10** | **none** | **70.0 ± 0.0 %** |\n| 0.1 | none | 60.0 ± 10.0 % |\n\
                     | 1000 | balanced | failed |\n";
        assert!(text.contains(table), "{text}");
        assert!(text.contains("Selected without a fold: alpha 0.1, class-weight none (1 ×); alpha 10"), "{text}");
        assert!(text.contains("1 trials failed"), "{text}");
        let records = report.records();
        assert_eq!(
            records[0],
            ["alpha", "class-weight", "accuracy", "standard_error", "fold_0", "fold_1", "seconds", "selected", "error"]
        );
        assert_eq!(records[2][..7], ["10", "none", "0.7", "0", "0.7", "0.7", "0.500"].map(String::from));
        assert_eq!(records[3][7..], ["false", "the weights diverged"].map(String::from));
        assert_eq!(report.summary().values["alpha"], "10");
    }

    #[test]
    fn axes_are_logarithmic_for_wide_ranges() {
        let axis = Axis::new(["0.01", "1", "100"].into_iter());
        assert!((axis.position("1") - 0.5).abs() < 1e-12);
        assert_eq!(
            axis.labels().iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
            ["1e-2", "1e-1", "1e0", "1e1", "1e2"]
        );
        assert_eq!(Axis::new(["0", "5", "10"].into_iter()).position("5"), 0.5);
        let names = Axis::new(["mean", "max", "mean"].into_iter());
        assert_eq!(names.labels(), [(0.25, "mean".into()), (0.75, "max".into())]);
        // One value.
        assert_eq!(Axis::new(["3"].into_iter()).position("3"), 0.5);
    }

    #[test]
    fn a_search_on_val_has_no_folds() {
        let trials = vec![trial(["1", "none"], Ok(vec![0.5])), trial(["2", "none"], Ok(vec![0.6]))];
        let report = report(None, trials, vec![]);
        assert_eq!(report.records()[2], ["2", "none", "0.6", "0.500", "true", ""]);
        assert!(report.plot().contains("accuracy on val"));
    }
}
