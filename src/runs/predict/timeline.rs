//! Scores over time: every row of a clip (a frame, window or shot) is scored as if it were a clip.

use std::path::Path;

use ndarray::Array2;

use super::output::check_first_line;
use super::{Predicted, TrainedRun, combine};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::evaluate::predictions::table::{SCORE_PREFIX, csv_error};
use crate::manifest::Manifest;
use crate::report::timeline::{self, Track};
use crate::store::{ClipKey, FeatureStore, RowSource, StoredClip};

/// The scores of the rows of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTimeline {
    /// Id of the clip.
    pub id: String,
    /// The source frames of each row.
    pub rows: Vec<RowSource>,
    /// The scores of each row, (rows, C).
    pub scores: Array2<f32>,
}

/// Checks that the models can score single rows.
///
/// # Errors
/// Returns an error if a model reads sequences, or the models read different features.
pub(super) fn check(models: &[TrainedRun], sources: usize) -> Result<()> {
    let mut runs = models.iter().flat_map(TrainedRun::feature_readers);
    if let Some(run) = runs.find(|run| run.saved.model.reads_sequences()) {
        let message =
            "the model reads all rows of a clip as a sequence, so it has no scores over time: omit --timeline";
        return Err(Error::Config { path: run.directory.clone(), message: message.into() });
    }
    if sources > 1 {
        let message =
            "the models read different features, whose rows have different times: omit --timeline, or choose one model";
        return Err(Error::Data(message.into()));
    }
    Ok(())
}

/// Scores the rows of the clips of the manifest. The columns are `classes`.
pub(super) fn of_clips(
    models: &[TrainedRun],
    manifest: &Manifest,
    store: &FeatureStore,
    classes: &[String],
) -> Result<Vec<ClipTimeline>> {
    let rows = store.rows()?;
    let stored: std::collections::HashMap<ClipKey, &StoredClip> =
        store.clips().iter().map(|clip| (clip.key(), clip)).collect();
    let clips = manifest.clips.iter().filter_map(|clip| stored.get(&ClipKey::from(clip)));
    clips
        .map(|clip| {
            let range = clip.offset..clip.offset + clip.length;
            let count = clip.length;
            let data = Dataset {
                ids: (0..count).map(|row| row.to_string()).collect(),
                groups: vec![None; count],
                rows: store.features(range.clone())?.into(),
                offsets: (0..=count).collect(),
                targets: Array2::zeros((count, 0)),
                classes: Vec::new(),
            };
            let members = models.iter().map(|run| run.predict(&|_| Ok(data.clone()))).collect::<Result<Vec<_>>>()?;
            let scores = combine(&members)?.with_classes(classes)?.scores.expect("models compute scores");
            Ok(ClipTimeline { id: clip.id.clone(), rows: rows[range].to_vec(), scores })
        })
        .collect()
}

/// First columns of the table.
const COLUMNS: [&str; 4] = ["id", "row", "start_seconds", "end_seconds"];

/// Checks that neither the table `path` nor its plot exists, or that they are an earlier timeline, which may be replaced.
///
/// # Errors
/// Returns an error if one of them is another file.
pub fn check_replaceable(path: &Path) -> Result<()> {
    let is_table = |line: &str| line.starts_with(&COLUMNS.join(","));
    check_first_line(path, "a timeline", is_table)?;
    let is_plot = |line: &str| line.starts_with("<svg") && path.exists();
    check_first_line(&path.with_extension("svg"), "the plot of an earlier timeline", is_plot)
}

impl Predicted {
    /// Writes the scores over time as CSV, with a plot of the same name in SVG.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write_timeline(&self, path: &Path) -> Result<()> {
        let mut writer = csv::Writer::from_path(path).map_err(csv_error(path))?;
        let columns = COLUMNS.map(String::from);
        let scores = self.classes.iter().map(|class| format!("{SCORE_PREFIX}{class}"));
        writer.write_record(columns.into_iter().chain(scores)).map_err(csv_error(path))?;
        for clip in &self.timeline {
            for (number, (row, scores)) in clip.rows.iter().zip(clip.scores.rows()).enumerate() {
                let cells = [clip.id.clone(), number.to_string(), seconds(row.start_seconds), seconds(row.end_seconds)];
                let scores = scores.into_iter().map(f32::to_string);
                writer.write_record(cells.into_iter().chain(scores)).map_err(csv_error(path))?;
            }
        }
        writer.flush().map_err(Error::io(path))?;
        let tracks: Vec<Track> = self.timeline.iter().map(track).collect();
        let plot = path.with_extension("svg");
        std::fs::write(&plot, timeline::plot("Scores over time", &tracks, &self.classes)).map_err(Error::io(&plot))
    }
}

fn track(clip: &ClipTimeline) -> Track {
    Track {
        name: clip.id.clone(),
        periods: clip.rows.iter().map(|row| (row.start_seconds, row.end_seconds)).collect(),
        scores: clip.scores.rows().into_iter().map(|row| row.to_vec()).collect(),
    }
}

fn seconds(value: f64) -> String {
    format!("{value:.3}")
}
