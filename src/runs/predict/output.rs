//! Files and tables of predictions.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Serialize, Serializer};

use super::{ClassScores, Predicted, PredictedClip};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::evaluate::predictions::table::{LABEL_SEPARATOR, SCORE_PREFIX};
use crate::evaluate::ranking::top_k_indices;
use crate::files;
use crate::report::table::Table;

/// First line of an id list.
const CATEGORY_HEADER: &str = "Id,Category";
/// Start of the first line of a CSV file.
const CSV_HEADER: &str = "id,path,predicted,error,";

/// Format of a file of predictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// CSV: id, path, predicted, error, and one column score:CLASS per class.
    Csv,
    /// One JSON object per line: id, path, predicted and scores, or id, path and error.
    Jsonl,
    /// CSV: Id, Category.
    Category,
}

impl Format {
    /// Returns the format of a file by its extension.
    ///
    /// # Errors
    /// Returns an error if the extension is neither csv nor jsonl.
    pub fn of_file(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase).as_deref() {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            _ => Err(Error::Table {
                path: path.to_path_buf(),
                line: None,
                message: "the extension is neither .csv nor .jsonl: choose the format with --format".into(),
            }),
        }
    }

    /// Checks that `path` does not exist, or is an earlier file of predictions in this format, which may be replaced.
    ///
    /// # Errors
    /// Returns an error if it is another file.
    pub fn check_replaceable(self, path: &Path) -> Result<()> {
        check_first_line(path, "a file of predictions in this format", |line| match self {
            Self::Csv => line.starts_with(CSV_HEADER),
            Self::Jsonl => line.starts_with("{\"id\":") && line.contains(",\"path\":"),
            Self::Category => line.trim_end() == CATEGORY_HEADER,
        })
    }
}

/// Checks that `path` does not exist, is empty, or has a first line that `is_own` recognizes; `kind` names such files.
pub(super) fn check_first_line(path: &Path, kind: &str, is_own: impl Fn(&str) -> bool) -> Result<()> {
    let Ok(file) = File::open(path) else { return Ok(()) };
    let mut first = String::new();
    let read = BufReader::new(file).read_line(&mut first);
    if read.is_ok() && (first.is_empty() || is_own(&first)) {
        return Ok(());
    }
    let message = format!("exists and is not {kind}: choose another file, or remove it");
    Err(Error::Table { path: path.to_path_buf(), line: None, message })
}

impl Predicted {
    /// Writes the predictions to the file `path`. An existing file is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, path: &Path, format: Format) -> Result<()> {
        let file = files::temporary(path)?;
        let written = match format {
            Format::Csv => self.write_csv(file.as_file()),
            Format::Jsonl => self.write_json_lines(file.as_file()),
            Format::Category => self.write_categories(file.as_file()),
        };
        written.map_err(Error::io(path))?;
        files::persist(file, path)
    }

    fn write_csv(&self, file: &File) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(file);
        let columns = CSV_HEADER.trim_end_matches(',').split(',').map(String::from);
        writer.write_record(columns.chain(self.classes.iter().map(|class| format!("{SCORE_PREFIX}{class}"))))?;
        for PredictedClip { id, path, scores } in &self.clips {
            let (predicted, error, scores) = match scores {
                Ok(scores) => (self.names(scores), "", scores.scores.iter().map(f32::to_string).collect::<Vec<_>>()),
                Err(error) => (String::new(), error.as_str(), vec![String::new(); self.classes.len()]),
            };
            let cells = [id.clone(), path.clone(), predicted, error.to_string()];
            writer.write_record(cells.into_iter().chain(scores))?;
        }
        writer.flush()
    }

    fn write_json_lines(&self, file: &File) -> std::io::Result<()> {
        let mut writer = BufWriter::new(file);
        for clip in &self.clips {
            serde_json::to_writer(&mut writer, &JsonLine { predicted: self, clip })?;
            writer.write_all(b"\n")?;
        }
        writer.flush()
    }

    fn write_categories(&self, file: &File) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(file);
        writer.write_record(CATEGORY_HEADER.split(','))?;
        for PredictedClip { id, scores, .. } in &self.clips {
            let category = scores.as_ref().map(|scores| self.names(scores)).unwrap_or_default();
            writer.write_record([id, &category])?;
        }
        writer.flush()
    }

    /// Joins the names of the predicted classes.
    fn names(&self, scores: &ClassScores) -> String {
        self.predicted_names(scores).collect::<Vec<_>>().join(LABEL_SEPARATOR)
    }

    fn predicted_names<'a>(&'a self, scores: &'a ClassScores) -> impl Iterator<Item = &'a str> {
        scores.predicted.iter().map(|&class| self.classes[class].as_str())
    }

    /// Formats the `top` highest scores of each clip for the terminal, at most `most` clips. Labels that are predicted for a
    /// multi-label clip are marked with `+`.
    pub fn summary(&self, top: usize, most: usize) -> String {
        let top = top.min(self.classes.len());
        let numbers: Vec<String> = (1..=top).map(|rank| format!("top {rank}")).collect();
        let header: Vec<&str> = std::iter::once("clip").chain(numbers.iter().map(String::as_str)).collect();
        let mut table = Table::new(&header, header.len());
        for clip in self.clips.iter().take(most) {
            let mut cells = vec![clip.id.clone()];
            match &clip.scores {
                Ok(scores) => cells.extend(self.highest(scores, top)),
                Err(_) => cells.push("failed".into()),
            }
            cells.resize(header.len(), String::new());
            table.rows.push(cells);
        }
        let more = self.clips.len().saturating_sub(most);
        let more = if more > 0 { format!("  … and {more} more clips\n") } else { String::new() };
        table.text() + &more
    }

    fn highest<'a>(&'a self, scores: &'a ClassScores, top: usize) -> impl Iterator<Item = String> + 'a {
        top_k_indices(&scores.scores, top).into_iter().map(|class| {
            let is_marked = self.task == Task::MultiLabel && scores.predicted.contains(&class);
            format!("{} {:.3}{}", self.classes[class], scores.scores[class], if is_marked { " +" } else { "" })
        })
    }
}

/// A line of a JSON file.
struct JsonLine<'a> {
    predicted: &'a Predicted,
    clip: &'a PredictedClip,
}

impl Serialize for JsonLine<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a, P: Serialize> {
            id: &'a str,
            path: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            predicted: Option<P>,
            #[serde(skip_serializing_if = "Option::is_none")]
            scores: Option<Scores<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a str>,
        }
        let Self { predicted, clip: PredictedClip { id, path, scores } } = self;
        let names = |scores| predicted.predicted_names(scores).collect::<Vec<&str>>();
        let found = scores.as_ref().ok();
        let values = found.map(|scores| Scores(&predicted.classes, &scores.scores));
        let error = scores.as_ref().err().map(String::as_str);
        match predicted.task {
            Task::SingleLabel => {
                let predicted = found.and_then(|scores| names(scores).first().copied());
                Line { id, path, predicted, scores: values, error }.serialize(serializer)
            }
            Task::MultiLabel => {
                Line { id, path, predicted: found.map(names), scores: values, error }.serialize(serializer)
            }
        }
    }
}

/// Scores by class, in the order of the classes.
struct Scores<'a>(&'a [String], &'a [f32]);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}
