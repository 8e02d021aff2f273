//! The result of a comparison in one sentence.
//!
//! The best row is selected on the validation split only; a row that is selected by its test metrics has optimistic test metrics.

use std::collections::BTreeMap;

use ndarray::Array2;

use super::tables::display_name;
use super::{ComparedRun, ComparisonRow, PairedRuns, Part, parts_of};
use crate::error::Result;
use crate::evaluate::significance::{PairedComparison, Resampled};
use crate::evaluate::split_metrics::MetricValue;
use crate::evaluate::{Predictions, SplitMetrics};
use crate::report::markdown::with_interval;

/// p-value below which a difference is called significant.
const LEVEL: f64 = 0.05;
/// Maximum number of rows that the sentence names one by one.
const MAX_NAMES: usize = 3;

/// Returns [`super::Comparison::best`].
pub(super) fn best_on_validation(rows: &[ComparisonRow]) -> Option<String> {
    let values = validation_values(rows).filter(|values| values.len() > 1)?;
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let best = values.iter().position(|&value| value == highest)?;
    Some(rows[best].name.clone())
}

/// Returns the metric by which all rows are ranked on the validation split, for each row; `None` if a row has no labeled
/// validation clips.
fn validation_values(rows: &[ComparisonRow]) -> Option<Vec<f64>> {
    let measured: Vec<&SplitMetrics> = rows.iter().map(|row| row.parts.get(&Part::Val)).collect::<Option<_>>()?;
    let key = common_headline(&measured)?.key;
    measured.iter().map(|metrics| metrics.value(&key)).collect()
}

/// Returns the first headline metric of the first row that all rows have: not all multi-label rows have the scores of an mAP.
fn common_headline(measured: &[&SplitMetrics]) -> Option<MetricValue> {
    let headlines = measured.first()?.headlines();
    headlines.into_iter().find(|metric| measured.iter().all(|metrics| metrics.value(&metric.key).is_some()))
}

/// Compares the run `best`, or the only run, with the constant baseline on the first part of the report, by the headline metric.
/// `resampled` are the parts of each run.
///
/// # Errors
/// Returns the error of [`Resampled::compare_paired`].
pub(super) fn baseline(
    runs: &[ComparedRun],
    resampled: &[BTreeMap<Part, Resampled<'_>>],
    best: Option<&str>,
) -> Result<Option<PairedComparison>> {
    let of_best = |(run, _): &(&ComparedRun, _)| runs.len() == 1 || best == Some(&run.name);
    let Some((run, resampled)) = runs.iter().zip(resampled).find(of_best) else { return Ok(None) };
    let part = runs.iter().flat_map(|run| run.parts.keys()).max();
    let Some((resampled, constant)) = part.and_then(|part| Some((resampled.get(part)?, run.constant.get(part)?)))
    else {
        return Ok(None);
    };
    let predictions = resampled.predictions;
    if run.identity.classifier == "constant" || predictions.labeled_rows().is_empty() {
        return Ok(None);
    }
    let Some((key, constant)) = constant_predictions(predictions, constant) else { return Ok(None) };
    Ok(resampled.compare_paired(&Resampled::new(&constant))?.into_iter().find(|paired| paired.measure == key))
}

/// Returns the predictions of the constant baseline with the metrics `constant` for the clips of `predictions`, and the key of the
/// metric that they are valid for.
fn constant_predictions(predictions: &Predictions, constant: &SplitMetrics) -> Option<(&'static str, Predictions)> {
    let n = predictions.len();
    match constant {
        SplitMetrics::SingleLabel(metrics) => {
            let label = &metrics.per_class.iter().find(|class| class.tp + class.fp > 0)?.label;
            let class = predictions.classes.iter().position(|name| name == label)?;
            Some(("accuracy", Predictions { predicted: vec![vec![class]; n], scores: None, ..predictions.clone() }))
        }
        // The average precision of a label is the same for all scores that do not depend on the clip.
        SplitMetrics::MultiLabel(_) => {
            predictions.scores.as_ref()?;
            let scores = Some(Array2::zeros((n, predictions.classes.len())));
            Some(("map", Predictions { predicted: vec![Vec::new(); n], scores, ..predictions.clone() }))
        }
    }
}

/// Returns the conclusion. `baseline` is the comparison with the constant baseline, `pairs` are those of all rows.
pub(super) fn conclude(
    rows: &[ComparisonRow],
    best: Option<&str>,
    baseline: Option<&PairedComparison>,
    pairs: &[PairedRuns],
) -> String {
    let Some(&part) = parts_of(rows).first() else { return "There are no labeled clips.".into() };
    if let [only] = rows {
        let result = result_on(only, part, baseline).unwrap_or_default();
        return format!("{} is the only run: {result}.", display_name(only));
    }
    let Some(row) = rows.iter().find(|row| best == Some(&row.name)) else {
        let without = rows.iter().filter(|row| !row.parts.contains_key(&Part::Val)).map(display_name).collect();
        return format!(
            "No run is marked as the best, since runs are selected on validation clips and these have no predictions of them: {}.",
            list(without)
        );
    };
    let selected = selection(rows, row);
    match part {
        Part::Test => {}
        _ => return format!("{selected}; there are no test clips to confirm it."),
    }
    let Some(result) = result_on(row, part, baseline) else {
        return format!("{selected}; it has no predictions of test clips.");
    };
    let others = others(rows, row, part, pairs).map(|others| format!("; {others}")).unwrap_or_default();
    format!("{selected}; {result}{others}.")
}

/// Says which row is the best on validation, and which others are equal.
fn selection(rows: &[ComparisonRow], best: &ComparisonRow) -> String {
    let measured: Vec<&SplitMetrics> = rows.iter().filter_map(|row| row.parts.get(&Part::Val)).collect();
    let metric = common_headline(&measured).unwrap_or_else(|| best.parts[&Part::Val].primary().0);
    let value_of = |row: &ComparisonRow| row.parts.get(&Part::Val).and_then(|metrics| metrics.value(&metric.key));
    let value = value_of(best).map(|value| format!("{} {:.1} %", metric.name, 100.0 * value)).unwrap_or_default();
    let equal: Vec<String> =
        rows.iter().filter(|row| row.name != best.name && value_of(row) == value_of(best)).map(display_name).collect();
    let name = display_name(best);
    match equal.len() {
        0 => format!("{name} is best on validation ({value})"),
        n => format!(
            "{name} is marked as the best, the first of {} rows that are equal on validation ({value}; also {})",
            n + 1,
            list(equal)
        ),
    }
}

/// Says the headline metric of a row on a part and how it compares with the constant baseline; `None` without predictions.
fn result_on(row: &ComparisonRow, part: Part, baseline: Option<&PairedComparison>) -> Option<String> {
    let (metric, value) = row.parts.get(&part)?.primary();
    let on = if part == Part::All { "on all clips".into() } else { format!("on {}", part.name()) };
    let reached = format!("{on} its {} is {}", metric.name, with_interval(value, metric.interval));
    Some(match baseline {
        Some(paired) => format!("{reached}, {}", versus_constant(paired)),
        None => reached,
    })
}

fn versus_constant(paired: &PairedComparison) -> String {
    let interval = paired.difference_interval.map(|bounds| bounds.map(|bound| 100.0 * bound));
    // McNemar's test assumes independent clips, so the interval decides if there is one: it resamples groups.
    let significant = match interval {
        Some([low, high]) => low > 0.0 || high < 0.0,
        None => paired.p < LEVEL,
    };
    let points = 100.0 * paired.difference;
    let brackets = |sign: f64| match interval {
        Some([low, high]) if sign > 0.0 => format!(" [{low:.1}, {high:.1}]"),
        Some([low, high]) => format!(" [{:.1}, {:.1}]", -high, -low),
        None => String::new(),
    };
    match (significant, points > 0.0) {
        (true, true) => format!("{points:.1} points{} above the constant predictor", brackets(1.0)),
        (true, false) => format!("{:.1} points{} below the constant predictor", -points, brackets(-1.0)),
        (false, _) => {
            format!("not significantly different from the constant predictor ({points:+.1} points{})", brackets(1.0))
        }
    }
}

/// Says which other rows are significantly worse or better than `best` on a part, and which are not significantly different, by
/// the Holm-corrected p-values; `None` if there is no pair.
fn others(rows: &[ComparisonRow], best: &ComparisonRow, part: Part, pairs: &[PairedRuns]) -> Option<String> {
    let key = best.parts.get(&part)?.primary().0.key;
    let (mut worse, mut better, mut similar) = (Vec::new(), Vec::new(), Vec::new());
    for pair in pairs.iter().filter(|pair| pair.part == part && pair.paired.measure == key) {
        let (other, advantage) = match () {
            () if pair.first == best.name => (&pair.second, pair.paired.difference),
            () if pair.second == best.name => (&pair.first, -pair.paired.difference),
            () => continue,
        };
        let Some(other) = rows.iter().find(|row| row.name == *other) else { continue };
        let group = match () {
            () if pair.p_holm >= LEVEL => &mut similar,
            () if advantage > 0.0 => &mut worse,
            () => &mut better,
        };
        group.push((display_name(other), pair.p_holm));
    }
    let compared = worse.len() + better.len() + similar.len();
    let mut clauses = Vec::new();
    if !better.is_empty() {
        clauses.push(group(&better, "significantly better on test, which is not used to select"));
    }
    if !similar.is_empty() {
        clauses.push(group(&similar, "not significantly different"));
    }
    match worse.len() {
        0 => {}
        n if n > 1 && n == rows.len() - 1 => {
            clauses.push(format!("all {n} other rows are significantly worse ({})", p_values(&worse)));
        }
        _ => clauses.push(group(&worse, "significantly worse")),
    }
    (compared > 0).then(|| clauses.join("; "))
}

/// Says that the rows `members` are `verdict`, with their p-values.
fn group(members: &[(String, f64)], verdict: &str) -> String {
    let verb = if members.len() == 1 { "is" } else { "are" };
    let names = list(members.iter().map(|(name, _)| name.clone()).collect());
    format!("{names} {verb} {verdict} ({})", p_values(members))
}

/// Returns the p-value, or the bound that holds for all: the highest of significant ones, otherwise the lowest. Rounding never moves
/// a p-value across the level or a bound beyond a p-value.
fn p_values(members: &[(String, f64)]) -> String {
    let highest = members.iter().map(|(_, p)| *p).fold(0.0, f64::max);
    let lowest = members.iter().map(|(_, p)| *p).fold(1.0, f64::min);
    // The summand keeps values that f64 represents slightly too low.
    let floor = |p: f64, digits: i32| (p * 10f64.powi(digits) + 1e-9).floor() / 10f64.powi(digits);
    let down = |p: f64| if p < 0.1 { format!("{:.3}", floor(p, 3)) } else { format!("{:.2}", floor(p, 2)) };
    if highest < 0.001 {
        "p < 0.001".into()
    } else if lowest == highest {
        format!("p = {}", down(highest))
    } else if highest < LEVEL {
        format!("p ≤ {:.3}", (highest * 1e3).ceil() / 1e3)
    } else {
        format!("p ≥ {}", down(lowest))
    }
}

/// Joins names: the first [`MAX_NAMES`], and the number of the others.
fn list(mut names: Vec<String>) -> String {
    if names.len() > MAX_NAMES + 1 {
        let others = names.len() - MAX_NAMES;
        names.truncate(MAX_NAMES);
        names.push(format!("{others} others"));
    }
    match names.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dataset::Task;
    use crate::evaluate::compute_metrics;
    use crate::report::compare::compare;
    use crate::report::compare::tests::{compared, scored};

    /// Returns a run of two classes whose predictions of `n` clips per part are wrong for the given rows.
    fn run(name: &str, n: usize, wrong: [&[usize]; 2]) -> ComparedRun {
        let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        // The class `b` is more frequent: two of three clips.
        let truth: Vec<usize> = (0..n).map(|i| usize::from(i % 3 > 0)).collect();
        let part = |wrong: &[usize]| {
            let chosen = |i: usize| truth[i] ^ usize::from(wrong.contains(&i));
            let scores = Array2::from_shape_fn((n, 2), |(i, class)| if class == chosen(i) { 0.9 } else { 0.1 });
            scored(&ids, &truth, scores, &["a", "b"])
        };
        let mut run = compared(name, Part::Val, part(wrong[0]));
        run.parts.insert(Part::Test, part(wrong[1]));
        run.constant = run.parts.iter().map(|(&part, predictions)| (part, constant(predictions))).collect();
        run
    }

    fn constant(predictions: &Predictions) -> SplitMetrics {
        let predicted = vec![vec![1]; predictions.len()];
        compute_metrics(&Predictions { predicted, scores: None, ..predictions.clone() })
    }

    fn conclusion(runs: &[ComparedRun]) -> String {
        compare(runs, &[]).unwrap().conclusion
    }

    #[test]
    fn the_best_on_validation_is_judged_on_test() {
        let all: Vec<usize> = (0..60).collect();
        // x is best on val. On test, y is not significantly different (it is even better), and z is significantly worse.
        let x = run("x", 60, [&[1], &[1, 2, 3]]);
        let y = run("y", 60, [&[1, 2], &[4]]);
        let z = run("z", 60, [&all[..30], &all[..30]]);
        let text = conclusion(&[y.clone(), x.clone(), z.clone()]);
        assert!(
            text.starts_with("x is best on validation (accuracy 98.3 %); on test its accuracy is 95.0 % ["),
            "{text}"
        );
        assert!(text.contains(", 28.3 points [") && text.contains("] above the constant predictor; "), "{text}");
        // McNemar with 3 and 1 discordant clips: 2 · (1 + 4) / 16 = 0.625; Holm's correction leaves the highest of three.
        assert!(
            text.ends_with("; y is not significantly different (p = 0.62); z is significantly worse (p < 0.001)."),
            "{text}"
        );
        assert_eq!(
            conclusion(&[z.clone(), x.clone()]).split("; ").last(),
            Some("z is significantly worse (p < 0.001).")
        );

        // The test split is not used to select, even if another row is significantly better there.
        let overfitted = run("w", 60, [&[], &all[..30]]);
        let text = conclusion(&[x.clone(), overfitted.clone()]);
        assert!(text.starts_with("w is best on validation (accuracy 100.0 %)"), "{text}");
        assert!(text.contains("x is significantly better on test, which is not used to select (p < 0.001)"), "{text}");
        assert!(
            text.contains("50.0 % [")
                && text.contains("not significantly different from the constant predictor (-16.7"),
            "{text}"
        );
        let bad = run("bad", 60, [&[], &all]);
        let text = conclusion(&[bad, z]);
        assert!(text.contains("66.7 points [") && text.contains("] below the constant predictor; z is"), "{text}");
    }

    #[test]
    fn ties_missing_parts_and_untrained_features_are_said() {
        let [mut x, y, z] = ["x", "y", "z"].map(|name| run(name, 30, [&[0], &[]]));
        x.identity.untrained = true;
        let text = conclusion(&[x.clone(), y.clone(), z]);
        let expected = "x (UNTRAINED) is marked as the best, the first of 3 rows that are equal on validation (accuracy 96.7 %; \
                        also y and z); on test its accuracy is 100.0 %";
        assert!(
            text.starts_with(expected) && text.ends_with("; y and z are not significantly different (p = 1.00)."),
            "{text}"
        );

        let without = |run: &ComparedRun, part: Part| {
            let mut run = run.clone();
            run.parts.remove(&part);
            run
        };
        let text = conclusion(&[x.clone(), without(&y, Part::Val)]);
        assert_eq!(
            text,
            "No run is marked as the best, since runs are selected on validation clips and these have no predictions of them: y."
        );
        let text = conclusion(&[without(&x, Part::Test), without(&y, Part::Test)]);
        assert!(text.ends_with("; there are no test clips to confirm it."), "{text}");
        let text = conclusion(&[without(&x, Part::Test), run("w", 30, [&[0, 1], &[]])]);
        assert_eq!(text, "x (UNTRAINED) is best on validation (accuracy 96.7 %); it has no predictions of test clips.");
        let text = conclusion(&[y]);
        assert!(text.starts_with("y is the only run: on test its accuracy is 100.0 %, 33.3 points ["), "{text}");
    }

    #[test]
    fn multi_label_rows_are_judged_by_map() {
        let n = 60;
        let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let truth: Vec<Vec<usize>> =
            (0..n).map(|i| (0..3).filter(|class| (i * 7 + class * 5) % 4 == 0 || i % 3 == *class).collect()).collect();
        let run = |name: &str, noise: f32| {
            let scores = Array2::from_shape_fn((n, 3), |(i, class)| {
                let own = if truth[i].contains(&class) { 0.3 } else { 0.0 };
                own + noise * ((i * 37 + class * 17) % 23) as f32 / 23.0
            });
            let classes = ["a", "b", "c"].map(String::from).to_vec();
            let part =
                Predictions::from_scores(Task::MultiLabel, ids.clone(), vec![None; n], truth.clone(), scores, classes);
            let mut run = compared(name, Part::Val, part.clone());
            run.constant = BTreeMap::from([(Part::Test, compute_metrics(&part))]);
            run.parts.insert(Part::Test, part);
            run
        };
        // The constant baseline is compared by mAP: its predicted labels do not matter.
        let text = conclusion(&[run("weak", 0.6), run("strong", 0.1)]);
        assert!(text.starts_with("strong is best on validation (mAP 100.0 %); on test its mAP is 100.0 %"), "{text}");
        let frequency: f64 =
            (0..3).map(|class| truth.iter().filter(|set| set.contains(&class)).count() as f64 / n as f64).sum();
        let expected = format!("{:.1} points [", 100.0 * (1.0 - frequency / 3.0));
        assert!(text.contains(&expected), "no {expected} in {text}");
        assert!(text.contains("above the constant predictor; weak is significantly worse (p "), "{text}");
    }

    #[test]
    fn long_lists_of_names_are_shortened() {
        let names = |n: usize| list((0..n).map(|i| i.to_string()).collect());
        assert_eq!([1, 2, 4, 5].map(names), ["0", "0 and 1", "0, 1, 2 and 3", "0, 1, 2 and 2 others"]);
    }
}
