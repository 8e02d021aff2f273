//! Selects the clips of a report from the predictions of a part.

use std::collections::BTreeMap;

use super::ClipSources;
use super::gallery::{ClipGroup, Gallery, ShownClip};
use super::neighbors::TrainingClips;
use crate::dataset::Task;
use crate::error::Result;
use crate::evaluate::Predictions;
use crate::evaluate::label_errors::{self, LabelError};
use crate::report::table::Table;

/// Maximum number of confusions of a part, the most frequent ones.
const MAX_CONFUSIONS: usize = 60;
/// Maximum number of likely label errors in a report; the CSV file contains all.
const MAX_LABEL_ERRORS: usize = 12;
/// Maximum number of worst errors of a part.
const MAX_WORST: usize = 8;
/// Number of training clips beside each of the worst errors.
const NEIGHBORS: usize = 3;

/// Explains the likely label errors in reports.
const LABEL_ERRORS_NOTE: &str = "The score of another label is at least as high as the mean score of that label among the clips that have it, and the given \
     label is not as confident (confident learning, Northcutt et al. 2021). Check these labels: the clip may also be a plain error.";

/// Returns the sections on the clips of a part.
///
/// # Errors
/// Returns an error if features cannot be read.
pub(super) fn galleries(name: &str, part: &Predictions, sources: &ClipSources<'_>) -> Result<Vec<Gallery>> {
    let mut galleries = vec![confusions(name, part, sources.thumbnails)];
    if is_held_out(name) {
        galleries.extend(label_errors::find(part).map(|errors| suspects(name, part, &errors)));
        let training = sources.data.map(TrainingClips::new).transpose()?.flatten();
        galleries.extend(training.map(|training| worst(name, part, &training)).transpose()?);
    }
    galleries.retain(|gallery| !gallery.groups.is_empty());
    Ok(galleries)
}

/// Returns `true` for the parts that classifiers are not trained on.
fn is_held_out(name: &str) -> bool {
    matches!(name, "val" | "test")
}

/// Returns the score of a class, if there are scores.
fn score(part: &Predictions, row: usize, class: usize) -> Option<f32> {
    part.scores.as_ref().map(|scores| scores[(row, class)])
}

fn score_text(score: Option<f32>) -> String {
    score.map_or(String::new(), |score| format!("{score:.2}"))
}

/// Returns the clips of each confusion, the most confident ones first. The confusions are sorted by the number of clips, errors before
/// correct predictions. Single-label: the cells of the confusion matrix. Multi-label: missed and wrongly predicted labels.
fn confusions(name: &str, part: &Predictions, limit: usize) -> Gallery {
    // The key is whether the prediction is correct, and the title's classes.
    let mut cells: BTreeMap<(bool, usize, usize), Vec<usize>> = BTreeMap::new();
    for row in part.labeled_rows() {
        let (truth, predicted) = (&part.truth[row], &part.predicted[row]);
        match part.task {
            Task::SingleLabel => {
                cells.entry((truth == predicted, truth[0], predicted[0])).or_default().push(row);
            }
            Task::MultiLabel => {
                let missed = truth.iter().filter(|class| !predicted.contains(class)).map(|&class| (class, 0));
                let wrong = predicted.iter().filter(|class| !truth.contains(class)).map(|&class| (class, 1));
                for (class, kind) in missed.chain(wrong) {
                    cells.entry((false, class, kind)).or_default().push(row);
                }
            }
        }
    }
    let mut cells: Vec<_> = cells.into_iter().collect();
    cells.sort_by_key(|((correct, ..), rows)| (*correct, std::cmp::Reverse(rows.len())));
    let total = cells.len();
    cells.truncate(MAX_CONFUSIONS);
    let group_of = |((_, first, second), mut rows): ((bool, usize, usize), Vec<usize>)| {
        let (class, sign) = match part.task {
            Task::SingleLabel => (second, 1.0),
            Task::MultiLabel => (first, if second == 0 { -1.0 } else { 1.0 }),
        };
        let confidence = |row: usize| sign * score(part, row, class).unwrap_or(0.0);
        rows.sort_by(|&a, &b| confidence(b).total_cmp(&confidence(a)).then(a.cmp(&b)));
        let count = rows.len();
        let title = match (part.task, second) {
            (Task::SingleLabel, _) => format!("{} → {}", part.classes[first], part.classes[second]),
            (Task::MultiLabel, 0) => format!("{} missed", part.classes[first]),
            (Task::MultiLabel, _) => format!("{} predicted wrongly", part.classes[first]),
        };
        let clip = |&row: &usize| ShownClip { id: part.ids[row].clone(), caption: score_text(score(part, row, class)) };
        let plural = if count == 1 { "clip" } else { "clips" };
        ClipGroup { title: format!("{title}: {count} {plural}"), clips: rows.iter().take(limit).map(clip).collect() }
    };
    let kind = match part.task {
        Task::SingleLabel => "true class → predicted class, with the score of the predicted class",
        Task::MultiLabel => "with the score of the label",
    };
    let shown =
        if total > MAX_CONFUSIONS { format!(" The {MAX_CONFUSIONS} largest of {total}.") } else { String::new() };
    Gallery {
        heading: format!("Clips of each confusion, {name}"),
        note: format!("Up to {limit} clips of each, the most confident ones: {kind}.{shown}"),
        // Without thumbnails, this would repeat the confusion matrix.
        groups: if limit == 0 { Vec::new() } else { cells.into_iter().map(group_of).collect() },
    }
}

/// Returns the texts of the given and the suggested label.
fn label_texts(part: &Predictions, error: &LabelError) -> [String; 2] {
    let class = |class: usize| part.classes[class].clone();
    match (error.given, error.suggested) {
        (Some(given), Some(suggested)) => [class(given), class(suggested)],
        (Some(given), None) => [class(given), format!("not {}", class(given))],
        (None, Some(suggested)) => [format!("not {}", class(suggested)), class(suggested)],
        (None, None) => [String::new(), String::new()],
    }
}

fn suspects(name: &str, part: &Predictions, errors: &[LabelError]) -> Gallery {
    let clip = |error: &LabelError| {
        let [given, suggested] = label_texts(part, error);
        let caption = format!("{given} ({:.2}), rather {suggested} ({:.2})?", error.given_score, error.suggested_score);
        ShownClip { id: part.ids[error.row].clone(), caption }
    };
    let clips: Vec<ShownClip> = errors.iter().take(MAX_LABEL_ERRORS).map(clip).collect();
    let title = format!("{} of {}", clips.len(), errors.len());
    Gallery {
        heading: format!("Likely label errors, {name}"),
        note: LABEL_ERRORS_NOTE.into(),
        groups: if clips.is_empty() { Vec::new() } else { vec![ClipGroup { title, clips }] },
    }
}

/// The likely label errors of a part.
pub(in crate::report) struct LabelErrorTables {
    /// Caption of `first`.
    pub caption: String,
    /// The most confident ones.
    pub first: Table,
    /// All of them.
    pub all: Table,
    /// Name of the CSV file with all of them.
    pub file: String,
}

/// Returns the likely label errors of a held-out part, the most confident ones first; `None` if there are none.
pub(in crate::report) fn label_errors(name: &str, part: &Predictions) -> Option<LabelErrorTables> {
    let errors = if is_held_out(name) { label_errors::find(part)? } else { return None };
    let mut all = Table::new(&["clip", "given label", "suggested label", "score of given", "score of suggested"], 3);
    for error in &errors {
        let [given, suggested] = label_texts(part, error);
        let scores = [error.given_score, error.suggested_score].map(|score| format!("{score:.3}"));
        all.rows.push([vec![part.ids[error.row].clone(), given, suggested], scores.to_vec()].concat());
    }
    let mut first = all.clone();
    first.rows.truncate(MAX_LABEL_ERRORS);
    let file = file_name(name);
    let count = errors.len();
    (count > 0).then(|| LabelErrorTables {
        caption: format!(
            "Likely label errors, {} of {count} ({file} lists all). {LABEL_ERRORS_NOTE}",
            first.rows.len()
        ),
        first,
        all,
        file,
    })
}

fn file_name(part: &str) -> String {
    format!("label_errors_{part}.csv")
}

/// Returns the errors with the largest wrong margin: single-label, the score of the predicted class minus that of the true class;
/// multi-label, the largest distance of a score from 0 or 1. Each is followed by its nearest training clips.
fn worst(name: &str, part: &Predictions, training: &TrainingClips<'_>) -> Result<Gallery> {
    let margin = |row: usize| -> f32 {
        let (truth, predicted) = (&part.truth[row], &part.predicted[row]);
        let Some(scores) = part.scores.as_ref().map(|scores| scores.row(row)) else { return 0.0 };
        match part.task {
            Task::SingleLabel => scores[predicted[0]] - scores[truth[0]],
            Task::MultiLabel => {
                let distance =
                    |(class, &score): (usize, &f32)| if truth.contains(&class) { 1.0 - score } else { score };
                scores.iter().enumerate().map(distance).fold(0.0, f32::max)
            }
        }
    };
    let wrong = part.labeled_rows().into_iter().filter(|&row| part.truth[row] != part.predicted[row]);
    let mut wrong: Vec<(usize, f32)> = wrong.map(|row| (row, margin(row))).collect();
    wrong.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let names = |set: &[usize]| part.label_names(set);
    let group = |(row, _): (usize, f32)| {
        let id = &part.ids[row];
        let predicted = match part.predicted[row].as_slice() {
            [] => "nothing".into(),
            set => names(set),
        };
        let own = ShownClip { id: id.clone(), caption: format!("{}, predicted {predicted}", names(&part.truth[row])) };
        let neighbors = training.nearest(id, NEIGHBORS)?.into_iter().map(|neighbor| ShownClip {
            id: neighbor.id,
            caption: format!("{} (cosine {:.2})", neighbor.labels.join("|"), neighbor.cosine),
        });
        Ok(ClipGroup { title: id.clone(), clips: std::iter::once(own).chain(neighbors).collect() })
    };
    let groups = wrong.into_iter().take(MAX_WORST).map(group).collect::<Result<Vec<_>>>()?;
    Ok(Gallery {
        heading: format!("Worst errors and their nearest training clips, {name}"),
        note: format!(
            "The errors with the largest margin between the scores, each followed by the {NEIGHBORS} training clips whose features \
             have the highest cosine similarity to its own, centered by the mean of the training clips."
        ),
        groups,
    })
}
