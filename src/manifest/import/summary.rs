//! What an import kept, dropped and missed.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use super::super::Entry;
use super::super::problems::several;

/// Ids and labels that are named; the rest is counted.
const NAMED: usize = 5;

/// What became of a data set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The layout's name.
    pub format: String,
    /// Titles that the list has.
    pub listed: usize,
    /// Clips in the manifest.
    pub kept: usize,
    /// Clips of each split (`train`, `val`, `test`, `no split`).
    pub splits: BTreeMap<&'static str, usize>,
    /// Clips of each label.
    pub labels: BTreeMap<String, usize>,
    /// How often each label that is not wanted was dropped.
    pub dropped_labels: BTreeMap<String, usize>,
    /// How often each label without a training clip was dropped from another split.
    pub untrained_labels: BTreeMap<String, usize>,
    /// Titles left out because no label of theirs is kept.
    pub without_label: Vec<String>,
    /// Titles left out because they have no file or no frame.
    pub missing: Vec<String>,
    /// Frames of the clips that are folders of frames, ascending.
    pub frames: Vec<usize>,
    /// Clips with fewer or more frames than the data set is published with: how many, and the published range.
    pub unusual_frames: Option<(usize, (usize, usize))>,
}

impl Summary {
    /// Counts what was kept.
    pub(super) fn count(&mut self, entries: &[Entry], usual: Option<(usize, usize)>) {
        self.kept = entries.len();
        for entry in entries {
            *self.splits.entry(entry.clip.split.map_or("no split", |split| split.name())).or_default() += 1;
            for label in &entry.clip.labels {
                *self.labels.entry(label.clone()).or_default() += 1;
            }
            self.frames.extend(entry.clip.frames());
        }
        self.frames.sort_unstable();
        if let Some((least, most)) = usual {
            let unusual = self.frames.iter().filter(|&&frames| frames < least || frames > most).count();
            self.unusual_frames = (unusual > 0).then_some((unusual, (least, most)));
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let clips = several(self.kept, "clip");
        writeln!(f, "{}: {clips} kept of {} listed", self.format, several(self.listed, "title"))?;
        let splits: Vec<String> = self.splits.iter().map(|(split, clips)| format!("{split} {clips}")).collect();
        writeln!(f, "  splits: {}", splits.join(", "))?;
        let uses: usize = self.labels.values().sum();
        let mean = uses as f64 / self.kept.max(1) as f64;
        writeln!(f, "  labels: {}, {mean:.2} a clip: {}", self.labels.len(), counted(&self.labels, usize::MAX))?;
        for (what, labels) in [
            ("labels dropped", &self.dropped_labels),
            ("labels without a training clip, dropped", &self.untrained_labels),
        ] {
            if !labels.is_empty() {
                writeln!(
                    f,
                    "  {what}: {} ({} uses): {}",
                    labels.len(),
                    labels.values().sum::<usize>(),
                    counted(labels, 12)
                )?;
            }
        }
        for (what, ids) in [
            ("titles without a label that is kept, left out", &self.without_label),
            ("titles without files, left out", &self.missing),
        ] {
            if !ids.is_empty() {
                let more = if ids.len() > NAMED { ", …" } else { "" };
                writeln!(f, "  {what}: {} ({}{more})", ids.len(), ids[..ids.len().min(NAMED)].join(", "))?;
            }
        }
        if let (Some(least), Some(most)) = (self.frames.first(), self.frames.last()) {
            let median = self.frames[self.frames.len() / 2];
            writeln!(f, "  frames a clip: {least} to {most}, median {median}")?;
        }
        if let Some((clips, (least, most))) = self.unusual_frames {
            writeln!(f, "  warning: {} with fewer than {least} or more than {most} frames", several(clips, "clip"))?;
        }
        Ok(())
    }
}

/// `Drama 12, Comedy 7`: the commonest first, at most `named` of them.
fn counted(labels: &BTreeMap<String, usize>, named: usize) -> String {
    let mut labels: Vec<(&String, &usize)> = labels.iter().collect();
    labels.sort_by(|a, b| b.1.cmp(a.1));
    let more = if labels.len() > named { ", …" } else { "" };
    let shown: Vec<String> = labels.iter().take(named).map(|(label, uses)| format!("{label} {uses}")).collect();
    shown.join(", ") + more
}
