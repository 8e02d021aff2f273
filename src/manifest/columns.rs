//! The header of a CSV manifest: columns, synonyms and misspellings.

use super::problems::Problems;
use crate::suggest::closest;

/// Names of the columns of a manifest.
pub(super) const COLUMN_NAMES: [&str; 9] = ["id", "path", "label", "labels", "split", "group", "start", "end", "year"];

/// Column names of other programs with the column they correspond to. They are not accepted, only suggested.
const SYNONYMS: [(&str, &str); 16] = [
    ("name", "id"),
    ("key", "id"),
    ("video_id", "id"),
    ("clip_id", "id"),
    ("file", "path"),
    ("filename", "path"),
    ("file_name", "path"),
    ("filepath", "path"),
    ("file_path", "path"),
    ("video", "path"),
    ("clip", "path"),
    ("class", "label"),
    ("category", "label"),
    ("target", "label"),
    ("subset", "split"),
    ("fold", "split"),
];

/// Index of each column; `None` if it is absent.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Columns {
    pub id: Option<usize>,
    pub path: Option<usize>,
    pub label: Option<usize>,
    pub labels: Option<usize>,
    pub split: Option<usize>,
    pub group: Option<usize>,
    pub start: Option<usize>,
    pub end: Option<usize>,
    pub year: Option<usize>,
}

impl Columns {
    /// Parses the header. An unknown column is a warning; one that looks like a misspelling of an absent column is a
    /// problem, because ignoring a split or group silently invalidates the metrics.
    pub(super) fn parse(header: &[String], line: u64, problems: &mut Problems, warnings: &mut Vec<String>) -> Columns {
        let mut columns = Columns::default();
        let mut unknown = Vec::new();
        for (index, name) in header.iter().enumerate() {
            match columns.slot(&name.to_lowercase()) {
                Some(slot @ None) => *slot = Some(index),
                Some(Some(_)) => problems.add(Some(line), format!("duplicate column `{name}` in the header")),
                None if name.is_empty() => {}
                None => unknown.push(name.clone()),
            }
        }
        if columns.label.is_some() && columns.labels.is_some() {
            problems.add(Some(line), "the header has both `label` and `labels`; keep one");
        }
        let absent: Vec<&str> =
            COLUMN_NAMES.into_iter().filter(|name| columns.slot(name).is_some_and(|slot| slot.is_none())).collect();
        let has_labels = columns.label.is_some() || columns.labels.is_some();
        let is_expected = |name: &&str| !(has_labels && name.starts_with("label"));
        let mut suggested = Vec::new();
        unknown.retain(|name| match closest(name, absent.iter().copied().filter(is_expected)) {
            Some(known) => {
                problems.add(
                    Some(line),
                    format!(
                        "misspelled column `{name}` in the header; did you mean `{known}`? rename or remove the column"
                    ),
                );
                suggested.push(known);
                false
            }
            None => true,
        });
        for required in ["id", "path"] {
            if absent.contains(&required) && !suggested.contains(&required) {
                let found = unknown.iter().find(|name| synonym(name) == Some(required));
                let hint = found.map(|name| format!("; rename `{name}` if it is that column")).unwrap_or_default();
                problems
                    .add(Some(line), format!("missing column `{required}` in the header ({}){hint}", header.join(",")));
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown
                .iter()
                .map(|name| match synonym(name).filter(|known| absent.contains(known)).filter(is_expected) {
                    Some(known) => format!("`{name}` (did you mean `{known}`?)"),
                    None => format!("`{name}`"),
                })
                .collect();
            let plural = if names.len() == 1 { "" } else { "s" };
            warnings.push(format!("ignored unknown column{plural}: {}", names.join(", ")));
        }
        columns
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<usize>> {
        Some(match name {
            "id" => &mut self.id,
            "path" => &mut self.path,
            "label" => &mut self.label,
            "labels" => &mut self.labels,
            "split" => &mut self.split,
            "group" => &mut self.group,
            "start" => &mut self.start,
            "end" => &mut self.end,
            "year" => &mut self.year,
            _ => return None,
        })
    }
}

fn synonym(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, known)| *known)
}
