//! The report of models by year: every year beside the constant predictor, plots over the years, one poster by all models.

use std::fmt::Write;
use std::path::Path;

use super::compare::Duplicates;
use super::inspect::compose_table;
use super::markdown::{self, UNTRAINED, percent};
use super::table::Table;
use super::year_plots::{self, Panel};
use super::{Picture, html, svg, write as write_text, write_records};
use crate::error::{Error, Result};
use crate::evaluate::SplitMetrics;
use crate::manifest::imbalance::Resampled;
use crate::posters::{Clips, METRICS, Posters};

/// What reports of models that learnt from drawn posters begin with.
const DEMO: &str = "DEMO: these models learnt from posters that kinoprobe drew. They say nothing about real posters.";

/// One model, measured on one part of its clips.
#[derive(Debug, Clone)]
pub struct Row {
    /// The year; `None` for the rows that stand for all years.
    pub year: Option<i32>,
    /// Its name: the year, or what it stands for.
    pub name: String,
    /// Its run's folder, below that of the report, where it has one.
    pub folder: Option<String>,
    /// Its labeled clips.
    pub clips: Clips,
    /// Its numbers.
    pub model: SplitMetrics,
    /// The constant predictor's on the same clips.
    pub constant: Option<SplitMetrics>,
    /// The numbers of the model of all clips on the same clips.
    pub all: Option<SplitMetrics>,
}

/// What all models say of one poster.
#[derive(Debug, Clone)]
pub struct Example {
    /// The poster's id.
    pub id: String,
    /// Its year.
    pub year: Option<i32>,
    /// Whether it has each of the labels.
    pub has: Vec<bool>,
    /// Each model's name and its scores, one a label.
    pub scores: Vec<(String, Vec<f32>)>,
}

/// Everything that the report says.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// The models.
    pub posters: &'a Posters,
    /// What was measured: `test`, or `val` where there is no test clip.
    pub part: &'a str,
    /// Every model, the years first.
    pub rows: Vec<Row>,
    /// One poster.
    pub example: Option<Example>,
    /// The training clips by label set, before and after resampling.
    pub resampled: Option<Resampled>,
    /// Clips that look alike across splits.
    pub duplicates: Vec<Duplicates>,
    /// Years that were skipped, in words.
    pub skipped: Vec<String>,
    /// What else the user should know.
    pub warnings: Vec<String>,
}

/// A heading and what stands below it.
struct Chapter {
    heading: String,
    text: Vec<String>,
    tables: Vec<(String, Table)>,
    pictures: Vec<Picture>,
}

/// Writes REPORT.md, report.html, years.csv and the pictures into `dir`.
///
/// # Errors
/// A file cannot be written.
pub fn write(dir: &Path, report: &Report<'_>) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let chapters = chapters(report);
    for picture in chapters.iter().flat_map(|chapter| &chapter.pictures) {
        write_text(&dir.join(&picture.file), &picture.svg)?;
    }
    write_records(&dir.join("years.csv"), records(report))?;
    write_text(&dir.join("REPORT.md"), &to_markdown(report, &chapters))?;
    write_text(&dir.join("report.html"), &to_html(report, &chapters))
}

/// A few columns for the terminal, the banners, the years that were skipped, and the warnings.
pub fn summary(report: &Report<'_>) -> String {
    let mut text = banners(report).into_iter().map(|banner| banner + "\n").collect::<String>();
    text.push_str(&results(report, &["map", "binary_accuracy", "top_1", "r_precision"]).text());
    let others = duplicates(report).chain(report.warnings.iter().map(|warning| format!("warning: {warning}")));
    for line in report.skipped.iter().cloned().chain(others) {
        text.push_str(&format!("{line}\n"));
    }
    text
}

fn banners(report: &Report<'_>) -> Vec<String> {
    let posters = report.posters;
    [(posters.untrained, UNTRAINED), (posters.demo, DEMO)]
        .into_iter()
        .filter(|(concerned, _)| *concerned)
        .map(|(_, text)| text.to_string())
        .collect()
}

fn duplicates<'a>(report: &'a Report<'_>) -> impl Iterator<Item = String> + 'a {
    report.duplicates.iter().map(|duplicates| format!("warning: {}", duplicates.sentence()))
}

/// The name of one of [`METRICS`] in tables.
fn name_of(report: &Report<'_>, key: &str) -> String {
    let numbers = report.rows.first().map(|row| row.model.values()).unwrap_or_default();
    numbers.into_iter().find(|number| number.key == key).map_or(key.to_string(), |number| number.name)
}

fn share(measured: Option<&SplitMetrics>, key: &str) -> String {
    measured.and_then(|measured| measured.value(key)).map_or("–".into(), percent)
}

/// Every model's numbers of `keys`, each beside the constant predictor's.
fn results(report: &Report<'_>, keys: &[&str]) -> Table {
    let mut table = Table::new(&["model", "train", "val", "test"], 1);
    table.header.extend(keys.iter().flat_map(|key| [name_of(report, key), "constant".into()]));
    table.rows = report
        .rows
        .iter()
        .map(|row| {
            let Clips { train, val, test } = row.clips;
            let mut cells = vec![row.name.clone()];
            cells.extend([train, val, test].map(|clips| clips.to_string()));
            cells.extend(keys.iter().flat_map(|key| [share(Some(&row.model), key), share(row.constant.as_ref(), key)]));
            cells
        })
        .collect();
    table.without_empty_columns()
}

/// What binary accuracy says of a model that says nothing.
fn silence(report: &Report<'_>) -> String {
    let share = report.rows.last().map_or(0.0, |row| {
        let classes = row.model.classes();
        let given: u64 = classes.iter().map(|class| class.support).sum();
        1.0 - given as f64 / (row.model.n() * classes.len()).max(1) as f64
    });
    format!(
        "Binary accuracy counts every label that is rightly not given: giving no label at all would have {} of it.",
        percent(share)
    )
}

/// What the model of all clips gets on every year's clips.
fn one_for_all(report: &Report<'_>) -> Option<Table> {
    let mut table = Table::new(&["clips of"], 1);
    table.header.extend(METRICS.map(|key| name_of(report, key)));
    for row in report.rows.iter().filter(|row| row.all.is_some()) {
        table
            .rows
            .push(std::iter::once(row.name.clone()).chain(METRICS.map(|key| share(row.all.as_ref(), key))).collect());
    }
    (!table.rows.is_empty()).then(|| table.without_empty_columns())
}

fn chapters(report: &Report<'_>) -> Vec<Chapter> {
    let mut chapters = vec![Chapter {
        heading: "Results".into(),
        text: vec![
            format!(
                "On the {} split, each number beside that of the constant predictor, which scores every label by its frequency \
                 among the training clips and gives the commonest. Labels that no clip of a part has are left out of its mAP; of \
                 a few clips it swings widely, so compare years by the same clips under the one model of all.",
                report.part
            ),
            silence(report),
        ],
        tables: vec![(String::new(), results(report, &METRICS))],
        pictures: Vec::new(),
    }];
    if let Some(table) = one_for_all(report) {
        chapters[0].tables.push(("The same clips by the one model of all years:".into(), table));
    }
    let years: Vec<(i32, &Row)> = report.rows.iter().filter_map(|row| Some((row.year?, row))).collect();
    if !years.is_empty() {
        let caption = format!("Numbers over the years, {} split", report.part);
        chapters.push(Chapter {
            heading: "Over the years".into(),
            text: vec![],
            tables: vec![],
            pictures: vec![Picture { file: "years.svg".into(), svg: over_years(report, &caption, &years), caption }],
        });
    }
    chapters.extend(report.example.as_ref().map(|example| chapter_of_example(report, example)));
    if let Some(resampled) = &report.resampled {
        let (before, after): (usize, usize) = resampled
            .label_sets
            .iter()
            .fold((0, 0), |(before, after), class| (before + class.before, after + class.after));
        let labels = &report.posters.labels;
        let mut table = Table::new(&["label", "before", "after"], 1);
        let counts = resampled.label_counts(labels.len());
        table.rows = labels
            .iter()
            .zip(counts)
            .map(|(label, (before, after))| vec![label.clone(), before.to_string(), after.to_string()])
            .collect();
        chapters.push(Chapter {
            heading: "Resampling".into(),
            text: vec![format!(
                "The {before} training clips of all years became {after}: sets of labels that are too rare are repeated, those \
                 that are too common thinned."
            )],
            tables: vec![
                ("Every label:".into(), table),
                ("Every set of labels:".into(), compose_table(resampled, labels)),
            ],
            pictures: Vec::new(),
        });
    }
    if !report.duplicates.is_empty() {
        chapters.push(Chapter {
            heading: "Near-duplicates across splits".into(),
            text: report.duplicates.iter().map(Duplicates::sentence).collect(),
            tables: report
                .duplicates
                .iter()
                .map(|duplicates| (format!("In {}:", duplicates.part.name()), duplicates.table()))
                .collect(),
            pictures: Vec::new(),
        });
    }
    chapters
}

fn over_years(report: &Report<'_>, caption: &str, years: &[(i32, &Row)]) -> String {
    let mut lines = vec!["the year's model", "constant predictor"];
    if years.iter().any(|(_, row)| row.all.is_some()) {
        lines.push("one model of all years");
    }
    let panels: Vec<Panel> = METRICS
        .into_iter()
        .map(|key| {
            let line = |of: fn(&Row) -> Option<&SplitMetrics>| {
                years.iter().map(|(_, row)| of(row).and_then(|measured| measured.value(key))).collect()
            };
            let all: [Vec<Option<f64>>; 3] =
                [line(|row| Some(&row.model)), line(|row| row.constant.as_ref()), line(|row| row.all.as_ref())];
            Panel { name: name_of(report, key), lines: all.into_iter().take(lines.len()).collect() }
        })
        .collect();
    let years: Vec<i32> = years.iter().map(|&(year, _)| year).collect();
    year_plots::over_years(caption, &years, &lines, &panels)
}

fn chapter_of_example(report: &Report<'_>, example: &Example) -> Chapter {
    let labels = &report.posters.labels;
    let has: Vec<&str> = labels.iter().zip(&example.has).filter(|(_, has)| **has).map(|(l, _)| l.as_str()).collect();
    let year = example.year.map(|year| format!(" of {year}")).unwrap_or_default();
    let caption = format!("Poster {}{year} by every model", example.id);
    Chapter {
        heading: "One poster by every model".into(),
        text: vec![format!("{}{year}, of the {} split, is {}.", example.id, report.part, has.join(", "))],
        tables: vec![],
        pictures: vec![Picture {
            file: "poster.svg".into(),
            svg: year_plots::heat_map(&caption, &example.scores, labels, &example.has),
            caption,
        }],
    }
}

/// years.csv: every model's numbers, the constant predictor's, and those of the model of all clips.
fn records(report: &Report<'_>) -> Vec<Vec<String>> {
    let header = ["model", "train", "val", "test"].map(String::from).into_iter();
    let keys = METRICS.iter().flat_map(|key| [key.to_string(), format!("constant:{key}"), format!("all:{key}")]);
    let text = |measured: Option<&SplitMetrics>, key: &str| {
        measured.and_then(|measured| measured.value(key)).map(|value| value.to_string()).unwrap_or_default()
    };
    let rows = report.rows.iter().map(|row| {
        let Clips { train, val, test } = row.clips;
        let counts = [train, val, test].map(|clips| clips.to_string());
        let numbers = METRICS.iter().flat_map(|key| {
            [text(Some(&row.model), key), text(row.constant.as_ref(), key), text(row.all.as_ref(), key)]
        });
        std::iter::once(row.name.clone()).chain(counts).chain(numbers).collect()
    });
    std::iter::once(header.chain(keys).collect()).chain(rows).collect()
}

/// What the models are, in pairs of name and value.
fn facts(report: &Report<'_>) -> Table {
    let posters = report.posters;
    let window = posters.window.map(|years| format!(", each learns from {years} years")).unwrap_or_default();
    let models =
        format!("{} by year{window}; of all years: {}", posters.years.len(), usize::from(posters.overall.is_some()));
    let mut table = Table::new(&["", ""], 2);
    table.rows = [
        ("models", models),
        ("features", format!("{} ({})", posters.method, posters.card)),
        ("weights", posters.weights.clone()),
        ("sha-256 of what made the features", posters.model_sha256.clone()),
        ("labels", posters.labels.join(", ")),
        ("kinoprobe", env!("CARGO_PKG_VERSION").into()),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_string(), value])
    .collect();
    table
}

fn to_markdown(report: &Report<'_>, chapters: &[Chapter]) -> String {
    use markdown::escape;
    let mut text = String::from("# Genres of posters\n\n");
    for banner in banners(report) {
        let _ = writeln!(text, "> **⚠ {banner}**\n");
    }
    let _ = writeln!(text, "{}", facts(report).markdown());
    for line in report.skipped.iter().chain(&report.warnings) {
        let _ = writeln!(text, "- warning: {}", escape(line));
    }
    for Chapter { heading, text: sentences, tables, pictures } in chapters {
        let _ = writeln!(text, "\n## {heading}");
        for sentence in sentences {
            let _ = writeln!(text, "\n{}", escape(sentence));
        }
        for (above, table) in tables {
            let _ = writeln!(text, "\n{above}\n\n{}", table.markdown());
        }
        for picture in pictures {
            let _ = writeln!(text, "\n![{}]({})", escape(&picture.caption), picture.file);
        }
    }
    let folders: Vec<String> = report.rows.iter().filter_map(|row| row.folder.clone()).collect();
    if !folders.is_empty() {
        let links: Vec<String> = folders.iter().map(|folder| format!("[{folder}]({folder}/REPORT.md)")).collect();
        let _ = writeln!(text, "\n## Every model by itself\n\n{}", links.join(" · "));
    }
    text
}

fn to_html(report: &Report<'_>, chapters: &[Chapter]) -> String {
    use svg::escape;
    let mut body = String::from("<h1>Genres of posters</h1>\n");
    for banner in banners(report) {
        let _ = writeln!(body, "<div class=\"alarm\" role=\"alert\">⚠ {}</div>", escape(&banner));
    }
    body.push_str(&facts(report).html());
    for line in report.skipped.iter().chain(&report.warnings) {
        let _ = writeln!(body, "<div class=\"warning\">{}</div>", escape(line));
    }
    for Chapter { heading, text, tables, pictures } in chapters {
        let _ = writeln!(body, "<h2>{}</h2>", escape(heading));
        for sentence in text {
            let _ = writeln!(body, "<p>{}</p>", escape(sentence));
        }
        for (above, table) in tables {
            let _ = writeln!(body, "<p>{}</p>\n{}", escape(above), table.html());
        }
        pictures.iter().for_each(|picture| body.push_str(&html::figure(picture)));
    }
    html::page("kinoprobe: genres of posters", &body)
}
