//! Report on poster models by year: metrics of each model and of the constant baseline, plots over the years, an example poster.

mod pooling;

use std::fmt::Write;
use std::path::Path;

use maud::html;

use super::compare::Duplicates;
use super::escape::escape_markdown;
use super::inspect::label_set_table;
use super::markdown::{UNTRAINED, percent};
use super::stale::remove_file;
use super::table::Table;
use super::year_plots::{self, Panel};
use super::{Figure, html, write as write_text, write_records};
use crate::error::{Error, Result};
use crate::evaluate::SplitMetrics;
use crate::evaluate::multi_label::thresholds::MIN_CLIPS;
use crate::evaluate::predictions::DEFAULT_THRESHOLD;
use crate::manifest::imbalance::Resampled;
use crate::posters::{ClipCounts, METRICS, ModelGrouping, PosterIndex};

pub use pooling::{Pooling, Variant};

/// Banner of reports on models trained with generated posters.
const DEMO: &str = "DEMO: these models are trained on generated posters. The results do not apply to real posters.";

/// Title of the report.
const TITLE: &str = "Genres of posters";
/// File of the metrics over the years.
const YEARS_FIGURE: &str = "years.svg";
/// File of the scores of the example poster.
const POSTER_FIGURE: &str = "poster.svg";

/// Results of one model on one part of its clips.
#[derive(Debug, Clone)]
pub struct ModelRow {
    /// Year; `None` for rows over all years.
    pub year: Option<i32>,
    /// Display name, such as the year.
    pub name: String,
    /// Directory of its run relative to the report, if it has one.
    pub directory: Option<String>,
    /// Number of labeled clips of each split.
    pub clips: ClipCounts,
    /// Metrics of the model.
    pub model: SplitMetrics,
    /// Metrics of the constant baseline on the same clips.
    pub constant: Option<SplitMetrics>,
    /// Metrics of the model of all years on the same clips.
    pub all: Option<SplitMetrics>,
}

/// Scores of one poster by every model.
#[derive(Debug, Clone)]
pub struct PosterExample {
    /// Id of the poster.
    pub id: String,
    /// Year of the poster.
    pub year: Option<i32>,
    /// For each label, `true` if the poster has it.
    pub has_label: Vec<bool>,
    /// Name of each model and its score of each label.
    pub scores: Vec<(String, Vec<f32>)>,
}

/// Content of the report.
#[derive(Debug, Clone)]
pub struct PosterReport<'a> {
    /// The models.
    pub posters: &'a PosterIndex,
    /// Evaluated split: `test`, or `val` if there are no test clips.
    pub part: &'a str,
    /// Results of each model, the years first.
    pub rows: Vec<ModelRow>,
    /// An example poster.
    pub example: Option<PosterExample>,
    /// Training clips of each label set before and after resampling.
    pub resampled: Option<Resampled>,
    /// Near-duplicate clips across splits.
    pub duplicates: Vec<Duplicates>,
    /// A message for each skipped year.
    pub skipped: Vec<String>,
    /// Further warnings for the user.
    pub warnings: Vec<String>,
    /// For models of years that are corrections of the model of all years: how they were chosen.
    pub pooling: Option<Pooling>,
}

/// A section of the report; tables have a caption, which may be empty.
#[derive(Default)]
struct Section {
    heading: String,
    paragraphs: Vec<String>,
    tables: Vec<(String, Table)>,
    figures: Vec<Figure>,
}

/// Writes REPORT.md, report.html, years.csv and the figures into `dir`.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(dir: &Path, report: &PosterReport<'_>) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    remove(dir)?;
    let sections = sections(report);
    for figure in sections.iter().flat_map(|section| &section.figures) {
        write_text(&dir.join(&figure.file), &figure.svg)?;
    }
    write_records(&dir.join("years.csv"), records(report))?;
    write_text(&dir.join("REPORT.md"), &to_markdown(report, &sections))?;
    write_text(&dir.join("report.html"), &to_html(report, &sections))
}

/// Removes the report of an earlier run. A directory without one is not changed.
///
/// # Errors
/// Returns an error if a file cannot be removed.
pub fn remove(dir: &Path) -> Result<()> {
    let title = std::fs::read_to_string(dir.join("REPORT.md")).unwrap_or_default();
    if title.lines().next() != Some(&format!("# {TITLE}")) {
        return Ok(());
    }
    for name in ["REPORT.md", "report.html", "years.csv", YEARS_FIGURE, POSTER_FIGURE] {
        remove_file(&dir.join(name))?;
    }
    Ok(())
}

/// Summarizes the report for the terminal: banners, main metrics, skipped years and warnings.
pub fn summary(report: &PosterReport<'_>) -> String {
    let mut text = banners(report).into_iter().map(|banner| format!("{banner}\n")).collect::<String>();
    text.push_str(&results(report, &["map", "binary_accuracy", "top_1", "r_precision"]).text());
    let duplicates = report.duplicates.iter().map(Duplicates::warning);
    let warnings = duplicates.chain(report.warnings.iter().cloned()).map(|warning| format!("warning: {warning}"));
    for line in report.skipped.iter().cloned().chain(warnings) {
        text.push_str(&format!("{line}\n"));
    }
    text
}

fn banners(report: &PosterReport<'_>) -> Vec<&'static str> {
    let posters = report.posters;
    let banners = [(posters.identity.untrained, UNTRAINED), (posters.demo, DEMO)];
    banners.into_iter().filter(|(applies, _)| *applies).map(|(_, text)| text).collect()
}

/// Returns the display name of one of [`METRICS`].
fn metric_name(report: &PosterReport<'_>, key: &str) -> String {
    let metrics = report.rows.first().map(|row| row.model.values()).unwrap_or_default();
    metrics.into_iter().find(|metric| metric.key == key).map_or(key.to_string(), |metric| metric.name)
}

fn metric_cell(measured: Option<&SplitMetrics>, key: &str) -> String {
    measured.and_then(|measured| measured.value(key)).map_or("–".into(), percent)
}

/// Returns the metrics `keys` of each model, each followed by the value of the constant baseline.
fn results(report: &PosterReport<'_>, keys: &[&str]) -> Table {
    let mut table = Table::new(&["model", "train", "val", "test"], 1);
    table.header.extend(keys.iter().flat_map(|key| [metric_name(report, key), "constant".into()]));
    table.rows = report
        .rows
        .iter()
        .map(|row| {
            let ClipCounts { train, val, test } = row.clips;
            let mut cells = vec![row.name.clone()];
            cells.extend([train, val, test].map(|clips| clips.to_string()));
            cells.extend(
                keys.iter()
                    .flat_map(|key| [metric_cell(Some(&row.model), key), metric_cell(row.constant.as_ref(), key)]),
            );
            cells
        })
        .collect();
    table.without_empty_columns()
}

/// Returns a note with the binary accuracy of a model that predicts no labels.
fn binary_accuracy_note(report: &PosterReport<'_>) -> String {
    let without_labels = report.rows.last().map_or(0.0, |row| {
        let classes = row.model.classes();
        let positives: u64 = classes.iter().map(|class| class.support).sum();
        1.0 - positives as f64 / (row.model.n() * classes.len()).max(1) as f64
    });
    format!(
        "Binary accuracy counts true negatives: a model that predicts no label at all reaches {}.",
        percent(without_labels)
    )
}

/// Returns the metrics of the model of all years on the clips of each year.
fn results_of_overall_model(report: &PosterReport<'_>) -> Option<Table> {
    let mut table = Table::new(&["clips of"], 1);
    table.header.extend(METRICS.map(|key| metric_name(report, key)));
    for row in report.rows.iter().filter(|row| row.all.is_some()) {
        let metrics = METRICS.map(|key| metric_cell(row.all.as_ref(), key));
        table.rows.push(std::iter::once(row.name.clone()).chain(metrics).collect());
    }
    (!table.rows.is_empty()).then(|| table.without_empty_columns())
}

const COMPARING_YEARS: &str = " With few clips the mAP varies widely between years; compare a year with the model of all years \
                               on the same clips.";

fn sections(report: &PosterReport<'_>) -> Vec<Section> {
    let mut results = Section {
        heading: "Results".into(),
        paragraphs: vec![
            format!(
                "Metrics on the {} split, each followed by the value of the constant baseline, which scores every label by \
                 its frequency among the training clips and predicts the most frequent ones. Labels without clips in a part are \
                 excluded from its mAP.{}",
                report.part,
                if report.posters.years.is_empty() { "" } else { COMPARING_YEARS }
            ),
            format!(
                "posters.json has a threshold for each label, tuned on val for the highest F1. Labels of fewer than {MIN_CLIPS} \
                 validation clips have the threshold {DEFAULT_THRESHOLD}."
            ),
            binary_accuracy_note(report),
        ],
        tables: vec![(String::new(), self::results(report, &METRICS))],
        ..Section::default()
    };
    if let Some(table) = results_of_overall_model(report) {
        results.tables.push(("The model of all years on the same clips:".into(), table));
    }
    let mut sections = vec![results];
    if let Some(pooling) = &report.pooling {
        sections.push(Section {
            heading: "Pooling".into(),
            paragraphs: pooling.paragraphs(report.part),
            tables: pooling.tables(report.part),
            ..Section::default()
        });
    }
    let years: Vec<(i32, &ModelRow)> = report.rows.iter().filter_map(|row| Some((row.year?, row))).collect();
    if !years.is_empty() {
        let caption = format!("Metrics over the years, {} split", report.part);
        sections.push(Section {
            heading: "Over the years".into(),
            figures: vec![Figure {
                file: YEARS_FIGURE.into(),
                svg: plot_over_years(report, &caption, &years),
                caption,
            }],
            ..Section::default()
        });
    }
    sections.extend(report.example.as_ref().map(|example| example_section(report, example)));
    sections.extend(report.resampled.as_ref().map(|resampled| resampling_section(report, resampled)));
    if !report.duplicates.is_empty() {
        sections.push(Section {
            heading: "Near-duplicates across splits".into(),
            paragraphs: report.duplicates.iter().map(Duplicates::warning).collect(),
            tables: report
                .duplicates
                .iter()
                .map(|duplicates| (format!("In {}:", duplicates.part.name()), duplicates.table()))
                .collect(),
            ..Section::default()
        });
    }
    sections
}

fn plot_over_years(report: &PosterReport<'_>, caption: &str, years: &[(i32, &ModelRow)]) -> String {
    let mut lines = vec!["model of the year", "constant baseline"];
    if years.iter().any(|(_, row)| row.all.is_some()) {
        lines.push("model of all years");
    }
    let panels: Vec<Panel> = METRICS
        .into_iter()
        .map(|key| {
            let line = |of: fn(&ModelRow) -> Option<&SplitMetrics>| {
                years.iter().map(|(_, row)| of(row).and_then(|measured| measured.value(key))).collect()
            };
            let all: [Vec<Option<f64>>; 3] =
                [line(|row| Some(&row.model)), line(|row| row.constant.as_ref()), line(|row| row.all.as_ref())];
            Panel { name: metric_name(report, key), lines: all.into_iter().take(lines.len()).collect() }
        })
        .collect();
    let years: Vec<i32> = years.iter().map(|&(year, _)| year).collect();
    year_plots::over_years(caption, &years, &lines, &panels)
}

fn example_section(report: &PosterReport<'_>, example: &PosterExample) -> Section {
    let labels = &report.posters.labels;
    let true_labels: Vec<&str> =
        labels.iter().zip(&example.has_label).filter(|(_, has)| **has).map(|(l, _)| l.as_str()).collect();
    let year = example.year.map(|year| format!(" ({year})")).unwrap_or_default();
    let caption = format!("Scores of poster {}{year} by every model", example.id);
    Section {
        heading: "Example poster".into(),
        paragraphs: vec![format!(
            "Poster {}{year} of the {} split. Its labels: {}.",
            example.id,
            report.part,
            true_labels.join(", ")
        )],
        figures: vec![Figure {
            file: POSTER_FIGURE.into(),
            svg: year_plots::heat_map(&caption, &example.scores, labels, &example.has_label),
            caption,
        }],
        ..Section::default()
    }
}

fn resampling_section(report: &PosterReport<'_>, resampled: &Resampled) -> Section {
    let (before, after): (usize, usize) =
        resampled.label_sets.iter().fold((0, 0), |(before, after), class| (before + class.before, after + class.after));
    let labels = &report.posters.labels;
    let mut table = Table::new(&["label", "before", "after"], 1);
    table.rows = labels
        .iter()
        .zip(resampled.label_counts(labels.len()))
        .map(|(label, (before, after))| vec![label.clone(), before.to_string(), after.to_string()])
        .collect();
    Section {
        heading: "Resampling".into(),
        paragraphs: vec![format!(
            "Resampling changed the {before} training clips of all years to {after}: clips with rare label sets are repeated, \
             and clips with frequent label sets are dropped."
        )],
        tables: vec![
            ("Clips of each label:".into(), table),
            ("Clips of each label set:".into(), label_set_table(resampled, labels)),
        ],
        ..Section::default()
    }
}

/// Returns the records of years.csv: metrics of each model, of the constant baseline, and of the model of all years.
fn records(report: &PosterReport<'_>) -> Vec<Vec<String>> {
    let header = ["model", "train", "val", "test"].map(String::from).into_iter();
    let keys = METRICS.iter().flat_map(|key| [key.to_string(), format!("constant:{key}"), format!("all:{key}")]);
    let text = |measured: Option<&SplitMetrics>, key: &str| {
        measured.and_then(|measured| measured.value(key)).map(|value| value.to_string()).unwrap_or_default()
    };
    let rows = report.rows.iter().map(|row| {
        let ClipCounts { train, val, test } = row.clips;
        let counts = [train, val, test].map(|clips| clips.to_string());
        let metrics = METRICS.iter().flat_map(|key| {
            [text(Some(&row.model), key), text(row.constant.as_ref(), key), text(row.all.as_ref(), key)]
        });
        std::iter::once(row.name.clone()).chain(counts).chain(metrics).collect()
    });
    std::iter::once(header.chain(keys).collect()).chain(rows).collect()
}

/// Returns the identity of the models as pairs of name and value.
fn identity(report: &PosterReport<'_>) -> Table {
    let posters = report.posters;
    let window = match (&report.pooling, posters.window) {
        (Some(_), _) => ", each a correction of the model of all years".into(),
        (None, Some(years)) => format!(", each trained on {years} years"),
        (None, None) => String::new(),
    };
    let overall = usize::from(posters.overall.is_some());
    let models = match posters.by {
        ModelGrouping::Year => format!("{} by year{window}; of all years: {overall}", posters.years.len()),
        ModelGrouping::None => format!("{overall} of all posters"),
    };
    let mut table = Table::new(&["", ""], 2);
    table.rows = [
        ("models", models),
        ("features", format!("{} ({})", posters.identity.method, posters.card)),
        ("weights", posters.identity.weights.clone()),
        ("model SHA-256", posters.identity.model_sha256.clone()),
        ("labels", posters.labels.join(", ")),
        ("kinoprobe", env!("CARGO_PKG_VERSION").into()),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_string(), value])
    .collect();
    table
}

fn to_markdown(report: &PosterReport<'_>, sections: &[Section]) -> String {
    let mut text = format!("# {TITLE}\n\n");
    for banner in banners(report) {
        let _ = writeln!(text, "> **⚠ {banner}**\n");
    }
    let _ = writeln!(text, "{}", identity(report).markdown());
    for line in report.skipped.iter().chain(&report.warnings) {
        let _ = writeln!(text, "- warning: {}", escape_markdown(line));
    }
    for Section { heading, paragraphs, tables, figures } in sections {
        let _ = writeln!(text, "\n## {heading}");
        for paragraph in paragraphs {
            let _ = writeln!(text, "\n{}", escape_markdown(paragraph));
        }
        for (caption, table) in tables {
            let _ = writeln!(text, "\n{caption}\n\n{}", table.markdown());
        }
        for figure in figures {
            let _ = writeln!(text, "\n![{}]({})", escape_markdown(&figure.caption), figure.file);
        }
    }
    let directories: Vec<String> = report.rows.iter().filter_map(|row| row.directory.clone()).collect();
    if !directories.is_empty() {
        let links: Vec<String> =
            directories.iter().map(|directory| format!("[{directory}]({directory}/REPORT.md)")).collect();
        let _ = writeln!(text, "\n## Reports of the models\n\n{}", links.join(" · "));
    }
    text
}

fn to_html(report: &PosterReport<'_>, sections: &[Section]) -> String {
    let body = html! {
        h1 { (TITLE) }
        @for text in banners(report) { (html::banner(text)) }
        (identity(report).html())
        @for line in report.skipped.iter().chain(&report.warnings) { div.warning { (line) } }
        @for Section { heading, paragraphs, tables, figures } in sections {
            h2 { (heading) }
            @for paragraph in paragraphs { p { (paragraph) } }
            @for (caption, table) in tables {
                p { (caption) }
                (table.html())
            }
            @for figure in figures { (html::figure(figure)) }
        }
    };
    html::page("kinoprobe: genres of posters", body)
}
