//! Writes report.html, the report of a run as a self-contained page.

use std::path::Path;

use maud::{Markup, PreEscaped, html};

use super::clips::{self, ClipSources};
use super::markdown::{self, UNTRAINED, remarks};
use super::metrics::{Metrics, PARTIAL_FILE};
use super::{Block, EvaluatedPart, html as page, part_content, write};
use crate::error::{Error, Result};
use crate::evaluate::predictions::PredictionTable;
use crate::evaluate::{Predictions, SplitMetrics};
use crate::manifest::Split;

/// File of the page.
pub(super) const FILE: &str = "report.html";

/// Writes report.html into the directory of a run or of an evaluation before it is [`complete`](super::complete): the content of REPORT.md
/// with its figures, and the clips of each confusion, likely label errors, and the worst errors with their nearest training clips, as far as
/// `sources` knows them. The page is a single file that loads nothing.
///
/// # Errors
/// Returns an error if metrics.json.partial or predictions.csv cannot be read, or the page cannot be written.
pub fn write_page(dir: &Path, sources: &ClipSources<'_>) -> Result<()> {
    let metrics = Metrics::read(&dir.join(PARTIAL_FILE))?;
    let evaluated = [("test", &metrics.test), ("val", &metrics.val), ("train", &metrics.train), ("all", &metrics.all)];
    let evaluated: Vec<_> =
        evaluated.into_iter().filter_map(|(name, measured)| Some((name, measured.as_ref()?))).collect();
    // Predictions of unlabeled clips only cannot be evaluated, so they are not read.
    let path = dir.join("predictions.csv");
    let predictions_of = |table: &PredictionTable, name: &str| match Split::parse(name) {
        Some(split) => table.select_split(split),
        None => table.predictions.clone(),
    };
    let evaluated: Vec<(&str, &SplitMetrics, Predictions)> = if evaluated.is_empty() {
        Vec::new()
    } else {
        let table = PredictionTable::read_csv(&path, Some(metrics.identity.task))?;
        evaluated.into_iter().map(|(name, measured)| (name, measured, predictions_of(&table, name))).collect()
    };
    let parts: Vec<EvaluatedPart<'_>> = evaluated
        .iter()
        .map(|(name, metrics_of_part, predictions)| {
            let constant = Split::parse(name).and_then(|split| metrics.constant.get(&split));
            let calibration = Split::parse(name).zip(metrics.calibration.as_ref());
            EvaluatedPart {
                name: name.to_string(),
                predictions,
                uncalibrated: None,
                error_before: calibration.and_then(|(split, record)| record.error_before(split)),
                metrics: metrics_of_part,
                constant,
            }
        })
        .collect();
    let predictions: Vec<(&str, &Predictions)> =
        parts.iter().map(|part| (part.name.as_str(), part.predictions)).collect();
    let clips = clips::sections(&predictions, sources)?;
    let title = match (metrics.identity.method.as_str(), metrics.identity.classifier.as_str()) {
        ("", "") => "Predictions".to_string(),
        (method, classifier) => format!("{method} · {classifier}"),
    };
    let figure =
        |heading, caption, file: &str| Result::Ok(read_figure(&dir.join(file))?.map(|svg| (heading, caption, svg)));
    let figures: Vec<Option<(&str, &str, String)>> = vec![
        figure("Settings", "search of settings", "search.svg")?,
        figure("Training", "learning curves", "curves.svg")?,
    ];
    let body = html! {
        h1 { (title) }
        @if metrics.identity.untrained { (page::banner(UNTRAINED)) }
        @for warning in &metrics.warnings { div.warning { (warning) } }
        @if let Some(unlabeled) = markdown::unlabeled_clips(&metrics) { p { (unlabeled) } }
        @if !parts.is_empty() {
            h2 { "Results" }
            (markdown::results_table(&metrics, &parts).html())
        }
        @if let Some(note) = markdown::interval_note(&parts) { p { (note) } }
        @if let Some((caption, table)) = markdown::seeds_table(&metrics, &parts) {
            p { (caption) }
            (table.html())
        }
        @for (heading, caption, svg) in figures.iter().flatten() {
            h2 { (heading) }
            figure aria-label=(caption) { (PreEscaped(svg)) }
        }
        @for (part, clips) in parts.iter().zip(&clips) { (section(&title, part, clips)) }
        footer {
            h2 { "Run" }
            (markdown::identity_table(&metrics).html())
        }
    };
    write(&dir.join(FILE), &page::page(&format!("kinoprobe: {title}"), body))
}

fn section(title: &str, part: &EvaluatedPart<'_>, clips: &Markup) -> Markup {
    let content = part_content(title, part);
    html! {
        h2 { (markdown::heading(&part.name)) }
        @let remarks = remarks(part.metrics, part.constant);
        @if !remarks.is_empty() || !content.findings.is_empty() {
            ul {
                @for remark in remarks { li { b { (remark) } } }
                @for finding in &content.findings { li { (finding) } }
            }
        }
        @for block in &content.blocks {
            @match block {
                Block::Table(caption, table) => { p { (caption) } (table.html()) }
                Block::Figure(figure) => { (page::figure(figure)) }
            }
        }
        (clips)
    }
}

/// Reads a figure of the run; `None` if there is none.
fn read_figure(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(svg) => Ok(Some(svg)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}
