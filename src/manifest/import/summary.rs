//! Counts of an import: kept, dropped and missing titles and labels.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use crate::manifest::parsed::ParsedClip;
use crate::manifest::problems::count_of;

/// Number of ids that are printed; the others are only counted.
const MAX_SHOWN_IDS: usize = 5;
/// Number of dropped labels that are printed.
const MAX_SHOWN_LABELS: usize = 12;

/// The counts of an import.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// Name of the format.
    pub format: String,
    /// Number of titles in the list.
    pub listed: usize,
    /// Number of clips in the manifest.
    pub kept: usize,
    /// Number of clips of each split (`train`, `val`, `test`, `no split`).
    pub splits: BTreeMap<&'static str, usize>,
    /// Number of clips of each label.
    pub labels: BTreeMap<String, usize>,
    /// Number of titles from which each label was dropped by the label filter.
    pub dropped_labels: BTreeMap<String, usize>,
    /// Number of validation and test clips from which each label without a training clip was dropped.
    pub untrained_labels: BTreeMap<String, usize>,
    /// Ids of the titles excluded because none of their labels is kept.
    pub without_label: Vec<String>,
    /// Ids of the titles excluded because they have no file or no frame.
    pub missing: Vec<String>,
    /// Numbers of frames of the clips that are directories of frames, ascending.
    pub frames: Vec<usize>,
    /// Number of clips whose number of frames is outside the range of the published data set, and that range.
    pub unusual_frames: Option<(usize, (usize, usize))>,
}

impl Summary {
    /// Counts the kept clips; `frame_range` is the published minimum and maximum number of frames.
    pub(super) fn count(&mut self, clips: &[ParsedClip], frame_range: Option<(usize, usize)>) {
        self.kept = clips.len();
        for clip in clips.iter().map(|parsed| &parsed.clip) {
            *self.splits.entry(clip.split.map_or("no split", |split| split.name())).or_default() += 1;
            for label in &clip.labels {
                *self.labels.entry(label.clone()).or_default() += 1;
            }
            self.frames.extend(clip.frames());
        }
        self.frames.sort_unstable();
        if let Some((min, max)) = frame_range {
            let unusual = self.frames.iter().filter(|&&frames| frames < min || frames > max).count();
            self.unusual_frames = (unusual > 0).then_some((unusual, (min, max)));
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let (clips, titles) = (count_of(self.kept, "clip"), count_of(self.listed, "title"));
        writeln!(f, "{}: kept {clips} of {titles}", self.format)?;
        let splits: Vec<String> = self.splits.iter().map(|(split, clips)| format!("{split} {clips}")).collect();
        writeln!(f, "  splits: {}", splits.join(", "))?;
        let total: usize = self.labels.values().sum();
        let mean = total as f64 / self.kept.max(1) as f64;
        let counts = format_counts(&self.labels, usize::MAX);
        writeln!(f, "  labels: {}, {mean:.2} per clip: {counts}", self.labels.len())?;
        for (description, labels) in [
            ("dropped labels", &self.dropped_labels),
            ("dropped labels without a training clip", &self.untrained_labels),
        ] {
            if !labels.is_empty() {
                let uses: usize = labels.values().sum();
                let counts = format_counts(labels, MAX_SHOWN_LABELS);
                writeln!(f, "  {description}: {} ({uses} uses): {counts}", labels.len())?;
            }
        }
        for (description, ids) in
            [("excluded, no kept label", &self.without_label), ("excluded, no file", &self.missing)]
        {
            if !ids.is_empty() {
                let shown = ids[..ids.len().min(MAX_SHOWN_IDS)].join(", ");
                let more = if ids.len() > MAX_SHOWN_IDS { ", …" } else { "" };
                writeln!(f, "  {description}: {} ({shown}{more})", count_of(ids.len(), "title"))?;
            }
        }
        if let (Some(min), Some(max)) = (self.frames.first(), self.frames.last()) {
            let median = self.frames[self.frames.len() / 2];
            writeln!(f, "  frames per clip: {min} to {max}, median {median}")?;
        }
        if let Some((clips, (min, max))) = self.unusual_frames {
            writeln!(f, "  warning: {} with fewer than {min} or more than {max} frames", count_of(clips, "clip"))?;
        }
        Ok(())
    }
}

/// Formats counts in descending order, at most `limit` of them: `Drama 12, Comedy 7`.
fn format_counts(counts: &BTreeMap<String, usize>, limit: usize) -> String {
    let mut counts: Vec<(&String, &usize)> = counts.iter().collect();
    counts.sort_by(|a, b| b.1.cmp(a.1));
    let more = if counts.len() > limit { ", …" } else { "" };
    let shown: Vec<String> = counts.iter().take(limit).map(|(label, count)| format!("{label} {count}")).collect();
    shown.join(", ") + more
}
