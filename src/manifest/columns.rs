//! The header of a manifest: which column is what, and what a misspelt one was meant to be.

use super::problems::Problems;

/// The columns of a manifest.
pub(super) const KNOWN: [&str; 9] = ["id", "path", "label", "labels", "split", "group", "start", "end", "year"];

/// Other programs' names for them; never accepted, only used to say what is meant.
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

/// Where each column stands; `None` where there is none.
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
    /// Reads the header. Unknown columns are warned of; one that looks like a misspelt column that is not there is a
    /// problem, because a split or group that is passed over spoils the score in silence.
    pub(super) fn read(header: &[String], line: u64, problems: &mut Problems, warnings: &mut Vec<String>) -> Columns {
        let mut columns = Columns::default();
        let mut unknown = Vec::new();
        for (index, name) in header.iter().enumerate() {
            match columns.slot(&name.to_lowercase()) {
                Some(slot @ None) => *slot = Some(index),
                Some(Some(_)) => problems.add(Some(line), format!("the column `{name}` stands twice in the header")),
                None if name.is_empty() => {}
                None => unknown.push(name.clone()),
            }
        }
        if columns.label.is_some() && columns.labels.is_some() {
            problems.add(Some(line), "the header has both `label` and `labels`; keep one");
        }
        let absent: Vec<&str> =
            KNOWN.into_iter().filter(|name| columns.slot(name).is_some_and(|slot| slot.is_none())).collect();
        let labeled = columns.label.is_some() || columns.labels.is_some();
        let wanted = |name: &&str| !(labeled && name.starts_with("label"));
        let mut guessed = Vec::new();
        unknown.retain(|name| match absent.iter().copied().filter(wanted).find(|known| resembles(name, known)) {
            Some(known) => {
                problems.add(
                    Some(line),
                    format!(
                        "header misspelt: `{name}` (line {line}); did you mean `{known}`? rename the column, or leave it out"
                    ),
                );
                guessed.push(known);
                false
            }
            None => true,
        });
        for required in ["id", "path"] {
            if absent.contains(&required) && !guessed.contains(&required) {
                let found = unknown.iter().find(|name| synonym(name) == Some(required));
                let hint = found.map(|name| format!("; is it `{name}`? then rename it")).unwrap_or_default();
                problems.add(
                    Some(line),
                    format!("the column `{required}` is missing from the header ({}){hint}", header.join(",")),
                );
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown
                .iter()
                .map(|name| match synonym(name).filter(|meant| absent.contains(meant)).filter(wanted) {
                    Some(meant) => format!("`{name}` (`{meant}` is meant?)"),
                    None => format!("`{name}`"),
                })
                .collect();
            let plural = if names.len() == 1 { "" } else { "s" };
            warnings.push(format!("unknown column{plural} passed over: {}", names.join(", ")));
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

/// Whether `name` is a likely misspelling of `known`: one edit away, two for names of five letters and more.
pub(super) fn resembles(name: &str, known: &str) -> bool {
    let name = name.to_lowercase();
    name.len() > 1 && distance(&name, known) <= if known.len() >= 5 { 2 } else { 1 }
}

/// Edits (insert, remove, replace, swap neighbors) between two words: the optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
