//! The comparison as tables, as an HTML page that stands alone, as Markdown, CSV and JSON.

use std::path::Path;

use super::{Comparison, Kind, Pair, Part, Row};
use crate::dataset::Task;
use crate::error::Result;
use crate::evaluate::split_metrics::{MetricValue, SplitMetrics};
use crate::report::html;
use crate::report::label_plots;
use crate::report::markdown::{UNTRAINED, cell, percent};
use crate::report::plots::{self, Bar};
use crate::report::svg::escape;
use crate::report::table::Table;
use crate::report::{Picture, write as write_text, write_records};

/// Numbers a row that the terminal has room for; the rest is in the report.
const PRINTED: usize = 3;

/// Rows whose classes are drawn; the rest is in the runs' own folders.
const DRAWN: usize = 12;

/// What the headings of the tables of pairs begin with.
const PAIRS: &str = "Pairs, ";

/// The tables of a comparison with their headings: results of each part (test first), time, pairs, and every class on the
/// part that matters most.
pub fn tables(comparison: &Comparison) -> Vec<(String, Table)> {
    let mut tables: Vec<(String, Table)> = parts(comparison)
        .into_iter()
        .map(|part| (heading(part).to_string(), results(comparison, part, usize::MAX)))
        .collect();
    let stages = stages(comparison);
    if !stages.rows.is_empty() {
        tables.push(("Time per stage".into(), stages));
    }
    for part in parts(comparison) {
        let pairs = pairs(comparison.pairs.iter().filter(|pair| pair.part == part));
        if !pairs.rows.is_empty() {
            tables.push((format!("{PAIRS}{}", part.name()), pairs));
        }
    }
    if let Some(&part) = parts(comparison).first() {
        tables.push((format!("Every class, {}", part.name()), classes(comparison, part)));
    }
    tables
}

/// Writes report.html, compare.md, compare.csv, compare.json and the pictures that compare.md shows.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written.
pub fn write(dir: &Path, comparison: &Comparison) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(crate::Error::io(dir))?;
    let (parts, classes) = pictures(comparison);
    for picture in parts.iter().chain(&classes) {
        write_text(&dir.join(&picture.file), &picture.svg)?;
    }
    write_records(&dir.join("compare.csv"), records(comparison))?;
    write_text(&dir.join("compare.md"), &markdown(comparison, &parts, &classes))?;
    write_text(&dir.join("report.html"), &html(comparison, &parts, &classes))?;
    let json = serde_json::to_string_pretty(comparison).expect("a comparison is plain data with text keys");
    write_text(&dir.join("compare.json"), &(json + "\n"))
}

fn parts(comparison: &Comparison) -> Vec<Part> {
    let mut parts: Vec<Part> = comparison.rows.iter().flat_map(|row| row.parts.keys().copied()).collect();
    parts.sort_unstable_by(|a, b| b.cmp(a));
    parts.dedup();
    parts
}

fn heading(part: Part) -> &'static str {
    match part {
        Part::All => "All clips",
        Part::Train => "Training split",
        Part::Val => "Validation split (chooses the epoch, so it flatters)",
        Part::Test => "Test split",
    }
}

fn name(row: &Row) -> String {
    if row.untrained { format!("{} (UNTRAINED)", row.name) } else { row.name.clone() }
}

/// The rows that have a part, and what was measured on it.
fn of_part(comparison: &Comparison, part: Part) -> Vec<(&Row, &SplitMetrics)> {
    comparison.rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).collect()
}

/// The row with the highest headline number, the first of equals, and its place.
fn best<'a>(rows: &[(&'a Row, &SplitMetrics)]) -> Option<(&'a Row, usize)> {
    let mut best: Option<(f64, usize)> = None;
    for (at, (_, measured)) in rows.iter().enumerate() {
        let (_, value) = measured.primary();
        if best.is_none_or(|(highest, _)| value > highest) {
            best = Some((value, at));
        }
    }
    best.map(|(_, at)| (rows[at].0, at))
}

/// One part's results, with at most so many `numbers` a row.
fn results(comparison: &Comparison, part: Part, numbers: usize) -> Table {
    let rows = of_part(comparison, part);
    let names = rows.first().map(|(_, measured)| measured.values()).unwrap_or_default();
    let mut header: Vec<String> = vec!["method · classifier".into(), "clips".into()];
    header.extend(names.into_iter().take(numbers).map(|number| number.name));
    header.extend(["hardest class".into(), "constant".into()]);
    let best = best(&rows).map(|(_, at)| at).filter(|_| rows.len() > 1);
    let mut table = Table { header, left: 1, rows: Vec::new(), best };
    for (row, measured) in rows {
        let mut cells = vec![name(row), measured.n().to_string()];
        cells.extend(measured.values().iter().take(numbers).map(cell));
        cells.push(measured.hardest().unwrap_or("–").into());
        cells.push(row.constant.get(&part).map_or("–".into(), |&value| percent(value)));
        table.rows.push(cells);
    }
    table.without_empty_columns()
}

fn stages(comparison: &Comparison) -> Table {
    let header = ["method · classifier", "extraction", "clips extracted", "clips/s", "seconds of video/s", "training"];
    let mut table = Table::new(&header, 1);
    for row in comparison.rows.iter().filter(|row| row.extraction.is_some() || row.training_seconds.is_some()) {
        let extraction = row.extraction;
        let clips = extraction.and_then(|e| e.clips);
        let rate = |amount: Option<f64>| match (amount, extraction) {
            (Some(amount), Some(extraction)) if extraction.seconds > 0.0 => {
                format!("{:.2}", amount / extraction.seconds)
            }
            _ => "–".into(),
        };
        let seconds = |seconds: Option<f64>| seconds.map_or("–".into(), |s| format!("{s:.2} s"));
        table.rows.push(vec![
            row.name.clone(),
            seconds(extraction.map(|e| e.seconds)),
            clips.map_or("–".into(), |clips| clips.to_string()),
            rate(clips.map(|clips| clips as f64)),
            rate(extraction.and_then(|e| e.video_seconds).filter(|&seconds| seconds > 0.0)),
            seconds(row.training_seconds),
        ]);
    }
    table.without_empty_columns()
}

fn pairs<'a>(pairs: impl Iterator<Item = &'a Pair>) -> Table {
    let header =
        ["first", "second", "of", "clips", "only first right", "only second right", "difference", "p", "p, Holm"];
    let mut table = Table::new(&header, 3);
    for pair in pairs {
        let paired = &pair.paired;
        let difference = match paired.difference_interval {
            Some([low, high]) => {
                format!("{:+.1} % [{:+.1}, {:+.1}]", 100.0 * paired.difference, 100.0 * low, 100.0 * high)
            }
            None => format!("{:+.1} %", 100.0 * paired.difference),
        };
        table.rows.push(vec![
            pair.first.clone(),
            pair.second.clone(),
            measure_name(&paired.measure).into(),
            paired.n.to_string(),
            count(paired.only_first),
            count(paired.only_second),
            difference,
            p_value(paired.p),
            p_value(pair.p_holm),
        ]);
    }
    table.without_empty_columns()
}

fn count(count: Option<u64>) -> String {
    count.map_or("–".into(), |count| count.to_string())
}

/// The name of a number that pairs are compared by.
fn measure_name(key: &str) -> &str {
    match key {
        "map" => "mAP",
        "micro_f1" => "micro F1",
        other => other,
    }
}

/// Precision, recall and average precision (where there is none, F1) of every class, the rows side by side.
fn classes(comparison: &Comparison, part: Part) -> Table {
    let rows: Vec<(&Row, &SplitMetrics)> =
        comparison.rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).take(DRAWN).collect();
    let ranked = rows.iter().any(|(_, measured)| measured.classes().iter().any(|c| c.average_precision.is_some()));
    let last = if ranked { "AP" } else { "F1" };
    let columns = rows.iter().flat_map(|(row, _)| ["P", "R", last].map(|what| format!("{what}: {}", row.name)));
    let header = ["class", "clips"].map(String::from).into_iter().chain(columns).collect();
    let mut table = Table { header, left: 1, rows: Vec::new(), best: None };
    let text = |value: Option<f64>| value.map_or("n/a".into(), |value| format!("{value:.3}"));
    for name in class_names(&rows) {
        let of = |measured: &SplitMetrics| {
            measured
                .classes()
                .into_iter()
                .find(|class| class.label == name)
                .map(|c| (c.support, [c.precision, c.recall, if ranked { c.average_precision } else { c.f1 }]))
        };
        let found: Vec<Option<(u64, [Option<f64>; 3])>> = rows.iter().map(|(_, measured)| of(measured)).collect();
        let support = found.iter().flatten().map(|(support, _)| *support).next().unwrap_or(0);
        let cells = found.iter().flat_map(|class| class.map_or([None; 3], |(_, values)| values)).map(text);
        table.rows.push([name.to_string(), support.to_string()].into_iter().chain(cells).collect());
    }
    table
}

/// The classes of all rows, each once, in the order of the first that has them.
fn class_names<'a>(rows: &[(&'a Row, &'a SplitMetrics)]) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().flat_map(|(_, measured)| measured.labels()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

/// The pictures of the parts, then those of the classes.
fn pictures(comparison: &Comparison) -> (Vec<Picture>, Vec<Picture>) {
    let mut pictures = Vec::new();
    for part in parts(comparison) {
        let of_part: Vec<&Row> = comparison.rows.iter().filter(|row| row.parts.contains_key(&part)).collect();
        let headlines = of_part[0].parts[&part].headlines();
        let bars: Vec<Bar> =
            of_part.iter().map(|row| Bar { name: name(row), values: row.parts[&part].headlines() }).collect();
        let constant = of_part.iter().find_map(|row| row.constant.get(&part)).copied();
        let names: Vec<&str> = headlines.iter().map(|number| number.name.as_str()).collect();
        let mut caption = format!("{}, {}, with 95 % intervals", names.join(" and "), part.name());
        caption[..1].make_ascii_uppercase();
        let svg = plots::bars(&caption, &bars, constant);
        pictures.push(Picture { file: format!("bars_{}.svg", part.name()), caption, svg });
    }
    (pictures, class_pictures(comparison))
}

/// The classes on the part that matters most: a confusion matrix a row, or average precision by label, rows side by side.
fn class_pictures(comparison: &Comparison) -> Vec<Picture> {
    let Some(&part) = parts(comparison).first() else { return Vec::new() };
    let rows: Vec<(&Row, &SplitMetrics)> =
        comparison.rows.iter().filter_map(|row| Some((row, row.parts.get(&part)?))).take(DRAWN).collect();
    let mut pictures = Vec::new();
    let mut series: Vec<(String, Vec<Option<f64>>)> = Vec::new();
    let labels: Vec<String> = class_names(&rows).into_iter().map(String::from).collect();
    for (i, (row, measured)) in rows.iter().enumerate() {
        match measured {
            SplitMetrics::SingleLabel(metrics) => {
                let caption = format!("{}, {}: accuracy {}", name(row), part.name(), percent(metrics.accuracy));
                let svg = plots::confusion(&caption, &metrics.labels, &metrics.confusion);
                pictures.push(Picture { file: format!("confusion_{:02}.svg", i + 1), caption, svg });
            }
            SplitMetrics::MultiLabel(_) => {
                let classes = measured.classes();
                let of = |label: &String| classes.iter().find(|class| class.label == label)?.average_precision;
                series.push((name(row), labels.iter().map(of).collect()));
            }
        }
    }
    if !series.is_empty() {
        let caption = format!("Average precision of every label, {}", part.name());
        let svg = label_plots::bars(&caption, &labels, &series);
        pictures.push(Picture { file: format!("average_precision_{}.svg", part.name()), caption, svg });
    }
    pictures
}

/// Long form: one record per row and part.
fn records(comparison: &Comparison) -> Vec<Vec<String>> {
    let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    // The headlines stand first, each with the ends of its interval.
    let cells = |numbers: &[MetricValue], cell: &dyn Fn(&MetricValue) -> [String; 3]| -> Vec<String> {
        let wide = |i: usize| if i < 2 { 3 } else { 1 };
        numbers.iter().enumerate().flat_map(|(i, number)| cell(number).into_iter().take(wide(i))).collect()
    };
    let first = comparison.rows.iter().flat_map(|row| row.parts.values()).next();
    let numbers = first.map(SplitMetrics::values).unwrap_or_default();
    let mut header: Vec<String> =
        "name,kind,method,classifier,untrained,split,clips".split(',').map(String::from).collect();
    header.extend(cells(&numbers, &|number| ["", "_low", "_high"].map(|end| format!("{}{end}", number.key))));
    header.extend(first.map(|first| format!("constant_{}", first.primary().0.key)));
    header.extend(["extract_seconds", "training_seconds"].map(String::from));
    let mut records = vec![header];
    for row in &comparison.rows {
        for (part, measured) in &row.parts {
            let kind = match row.kind {
                Kind::Run => "run",
                Kind::LateFusion => "late-fusion",
                Kind::EarlyFusion => "early-fusion",
            };
            let mut record = vec![row.name.clone(), kind.into(), row.method.clone(), row.classifier.clone()];
            record.extend([row.untrained.to_string(), part.name().into(), measured.n().to_string()]);
            record.extend(cells(&measured.values(), &|number| {
                let [low, high] = [0, 1].map(|end| text(number.interval.map(|interval| interval[end])));
                [text(number.value), low, high]
            }));
            record.extend([
                text(row.constant.get(part).copied()),
                text(row.extraction.map(|e| e.seconds)),
                text(row.training_seconds),
            ]);
            records.push(record);
        }
    }
    records
}

/// What the numbers are, for the foot of the report.
fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = vec![
        "In brackets: 95 % percentile bootstrap intervals, 2000 resamples; whole groups are drawn where the predictions \
         name groups."
            .to_string(),
    ];
    notes.extend(match comparison.task {
        Task::SingleLabel => [
            "p: McNemar's exact two-sided test on the clips that both predicted; Holm corrects it for the number of pairs. \
             It takes clips as independent: where there are groups, trust the interval of the difference, which draws groups.",
            "Calibration error: expected calibration error of the highest probability, 15 equal bins.",
        ],
        Task::MultiLabel => [
            "p: two-sided paired bootstrap on the clips that both predicted, both measured on the same draws (whole groups \
             where there are any), never below 0.001; Holm corrects it for the number of pairs.",
            "mAP: the mean over the labels of their average precision; labels that no clip has show n/a and are left out. \
             Labels are predicted from a score of 0.5 on; thresholds tuned on validation are in each run's own report.",
        ],
    }.map(String::from));
    if comparison.rows.iter().any(|row| row.kind == Kind::LateFusion) {
        notes.push("Late fusion: the mean of the runs' probabilities; the best pair is chosen on validation.".into());
    }
    if comparison.rows.iter().any(|row| row.kind == Kind::EarlyFusion) {
        notes.push("Early fusion: one classifier on the methods' standardized features side by side.".into());
    }
    notes
}

fn untrained(comparison: &Comparison) -> Option<String> {
    let names: Vec<&str> = comparison.rows.iter().filter(|row| row.untrained).map(|row| row.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("{UNTRAINED} Concerned: {}.", names.join("; ")))
}

fn markdown(comparison: &Comparison, parts: &[Picture], classes: &[Picture]) -> String {
    use crate::report::markdown::escape;
    let mut text = String::from("# Comparison\n\n");
    if let Some(banner) = untrained(comparison) {
        text.push_str(&format!("> **⚠ {}**\n\n", escape(&banner)));
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("- warning: {}\n", escape(warning)));
    }
    for (heading, table) in tables(comparison) {
        text.push_str(&format!("\n## {heading}\n\n{}", table.markdown()));
    }
    text.push_str("\n## Pictures\n");
    for picture in parts.iter().chain(classes) {
        text.push_str(&format!("\n![{}]({})\n", escape(&picture.caption), picture.file));
    }
    text.push_str("\n## Notes\n\n");
    for note in notes(comparison) {
        text.push_str(&format!("- {note}\n"));
    }
    text
}

fn html(comparison: &Comparison, parts: &[Picture], classes: &[Picture]) -> String {
    let mut body = String::from("<h1>kinoprobe: comparison</h1>\n");
    if let Some(banner) = untrained(comparison) {
        body.push_str(&format!("<div class=\"alarm\" role=\"alert\">⚠ {}</div>\n", escape(&banner)));
    }
    for warning in &comparison.warnings {
        body.push_str(&format!("<div class=\"warning\">{}</div>\n", escape(warning)));
    }
    let mut bars = parts.iter();
    for (heading, table) in tables(comparison) {
        body.push_str(&format!("<h2>{}</h2>\n{}", escape(&heading), table.html()));
        // The parts' tables come first, in the order of their bars.
        if let Some(picture) = bars.next() {
            body.push_str(&html::figure(picture));
        }
    }
    body.push_str("<h2>Classes in pictures</h2>\n<div class=\"side\">\n");
    for picture in classes {
        body.push_str(&html::figure(picture));
    }
    body.push_str("</div>\n");
    for duplicates in &comparison.duplicates {
        let what = format!("Near-duplicates of {} clips in {}", duplicates.part.name(), duplicates.store.display());
        body.push_str(&format!("<h2>{}</h2>\n{}", escape(&what), duplicates.table().html()));
    }
    body.push_str("<footer><h2>Notes</h2><ul>\n");
    for note in notes(comparison) {
        body.push_str(&format!("<li>{}</li>\n", escape(&note)));
    }
    body.push_str(&format!("<li>kinoprobe {}</li></ul></footer>\n", env!("CARGO_PKG_VERSION")));
    html::page("kinoprobe: comparison", &body)
}

/// What the terminal shows, what matters most last: time, how the best on the first part compares with the others, the first
/// few numbers of each part; warnings and banner. The rest is in the report.
pub fn summary(comparison: &Comparison) -> String {
    let mut text = String::new();
    let mut show = |heading: &str, table: Table| {
        if !table.rows.is_empty() {
            text.push_str(&format!("{heading}\n{}\n", table.text()));
        }
    };
    show("Time per stage", stages(comparison));
    let parts = parts(comparison);
    if let Some(&part) = parts.first() {
        let best = best(&of_part(comparison, part)).map(|(row, _)| row.name.as_str());
        let all = comparison.pairs.iter().filter(|pair| pair.part == part).count();
        let chosen =
            comparison.pairs.iter().filter(|pair| best.is_some_and(|best| pair.first == best || pair.second == best));
        let heading = format!("{PAIRS}{}, with the best (all {all} are in the report)", part.name());
        show(&heading, pairs(chosen.filter(|pair| pair.part == part)));
    }
    for &part in parts.iter().rev() {
        show(heading(part), results(comparison, part, PRINTED));
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if let Some(banner) = untrained(comparison) {
        text.push_str(&format!("⚠ {banner}\n"));
    }
    text
}
