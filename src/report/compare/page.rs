//! The comparison as tables, as an HTML page that stands alone, as Markdown, CSV and JSON.

use std::path::Path;

use super::{Comparison, Kind, Part, Row};
use crate::error::Result;
use crate::report::markdown::{UNTRAINED, percent, with_interval};
use crate::report::plots::{self, Bar};
use crate::report::svg::escape;
use crate::report::table::Table;
use crate::report::{write as write_text, write_records};

/// Confusion matrices that are drawn; the rest is in the runs' own folders.
const MATRICES: usize = 12;

/// What the headings of the tables of pairs begin with.
const PAIRS: &str = "Pairs, ";

/// The tables of a comparison with their headings: results of each part (test first), time, pairs.
pub fn tables(comparison: &Comparison) -> Vec<(String, Table)> {
    let mut tables: Vec<(String, Table)> =
        parts(comparison).into_iter().map(|part| (heading(part).to_string(), results(comparison, part))).collect();
    let stages = stages(comparison);
    if !stages.rows.is_empty() {
        tables.push(("Time per stage".into(), stages));
    }
    for part in parts(comparison) {
        let pairs = pairs(comparison, part);
        if !pairs.rows.is_empty() {
            tables.push((format!("{PAIRS}{}", part.name()), pairs));
        }
    }
    tables
}

/// Writes report.html, compare.md, compare.csv, compare.json and the pictures that compare.md shows.
///
/// # Errors
/// The folder cannot be made, or a file cannot be written.
pub fn write(dir: &Path, comparison: &Comparison) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(crate::Error::io(dir))?;
    let pictures = pictures(comparison);
    for picture in &pictures {
        write_text(&dir.join(&picture.file), &picture.svg)?;
    }
    write_records(&dir.join("compare.csv"), records(comparison))?;
    write_text(&dir.join("compare.md"), &markdown(comparison, &pictures))?;
    write_text(&dir.join("report.html"), &html(comparison, &pictures))?;
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

fn results(comparison: &Comparison, part: Part) -> Table {
    let header =
        ["method · classifier", "clips", "accuracy", "macro F1", "top-3", "top-5", "ECE", "hardest class", "constant"];
    let mut table = Table::new(&header, 1);
    let mut best: Option<(f64, usize)> = None;
    for row in &comparison.rows {
        let Some(metrics) = row.parts.get(&part) else { continue };
        if best.is_none_or(|(accuracy, _)| metrics.accuracy > accuracy) {
            best = Some((metrics.accuracy, table.rows.len()));
        }
        let interval = metrics.interval.as_ref();
        let top = |k: usize| metrics.top_k.get(&k).map_or("–".into(), |&share| percent(share));
        table.rows.push(vec![
            name(row),
            metrics.n.to_string(),
            with_interval(metrics.accuracy, interval.map(|i| i.accuracy)),
            with_interval(metrics.macro_.f1, interval.map(|i| i.macro_f1)),
            top(3),
            top(5),
            metrics.expected_calibration_error.map_or("–".into(), |error| format!("{error:.3}")),
            metrics.hardest.clone().unwrap_or("–".into()),
            row.constant.get(&part).map_or("–".into(), |&accuracy| percent(accuracy)),
        ]);
    }
    table.best = best.map(|(_, row)| row).filter(|_| table.rows.len() > 1);
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

fn pairs(comparison: &Comparison, part: Part) -> Table {
    let header = ["first", "second", "clips", "only first right", "only second right", "difference", "p", "p, Holm"];
    let mut table = Table::new(&header, 2);
    for pair in comparison.pairs.iter().filter(|pair| pair.part == part) {
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
            paired.n.to_string(),
            paired.only_first.to_string(),
            paired.only_second.to_string(),
            difference,
            p_value(paired.p),
            p_value(pair.p_holm),
        ]);
    }
    table
}

fn p_value(p: f64) -> String {
    if p < 1e-4 { format!("{p:.1e}") } else { format!("{p:.4}") }
}

struct Picture {
    file: String,
    caption: String,
    svg: String,
    matrix: bool,
}

fn pictures(comparison: &Comparison) -> Vec<Picture> {
    let mut pictures = Vec::new();
    for part in parts(comparison) {
        let of_part: Vec<&Row> = comparison.rows.iter().filter(|row| row.parts.contains_key(&part)).collect();
        let bars: Vec<Bar> = of_part
            .iter()
            .map(|row| {
                let metrics = &row.parts[&part];
                let interval = metrics.interval.as_ref();
                Bar {
                    name: name(row),
                    accuracy: (metrics.accuracy, interval.map(|i| i.accuracy)),
                    macro_f1: (metrics.macro_.f1, interval.map(|i| i.macro_f1)),
                }
            })
            .collect();
        let constant = of_part.iter().find_map(|row| row.constant.get(&part)).copied();
        let caption = format!("Accuracy and macro F1, {}, with 95 % intervals", part.name());
        let svg = plots::bars(&caption, &bars, constant);
        pictures.push(Picture { file: format!("bars_{}.svg", part.name()), caption, svg, matrix: false });
    }
    if let Some(&part) = parts(comparison).first() {
        let rows = comparison.rows.iter().filter(|row| row.parts.contains_key(&part)).take(MATRICES);
        for (i, row) in rows.enumerate() {
            let metrics = &row.parts[&part];
            let caption = format!("{}, {}: accuracy {}", name(row), part.name(), percent(metrics.accuracy));
            let svg = plots::confusion(&caption, &metrics.labels, &metrics.confusion);
            pictures.push(Picture { file: format!("confusion_{:02}.svg", i + 1), caption, svg, matrix: true });
        }
    }
    pictures
}

/// Long form: one record per row and part.
fn records(comparison: &Comparison) -> Vec<Vec<String>> {
    let header = "name,kind,method,classifier,untrained,split,clips,accuracy,accuracy_low,accuracy_high,macro_precision,\
        macro_recall,macro_f1,macro_f1_low,macro_f1_high,weighted_f1,top_3,top_5,expected_calibration_error,\
        constant_accuracy,extract_seconds,training_seconds";
    let mut records = vec![header.split(',').map(String::from).collect::<Vec<_>>()];
    for row in &comparison.rows {
        for (part, metrics) in &row.parts {
            let or_empty = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
            let interval = metrics.interval.as_ref();
            let top = |k: usize| or_empty(metrics.top_k.get(&k).copied());
            let kind = match row.kind {
                Kind::Run => "run",
                Kind::LateFusion => "late-fusion",
                Kind::EarlyFusion => "early-fusion",
            };
            let mut record = vec![row.name.clone(), kind.into(), row.method.clone(), row.classifier.clone()];
            record.extend([row.untrained.to_string(), part.name().into(), metrics.n.to_string()]);
            record.extend([
                metrics.accuracy.to_string(),
                or_empty(interval.map(|i| i.accuracy[0])),
                or_empty(interval.map(|i| i.accuracy[1])),
                metrics.macro_.precision.to_string(),
                metrics.macro_.recall.to_string(),
                metrics.macro_.f1.to_string(),
                or_empty(interval.map(|i| i.macro_f1[0])),
                or_empty(interval.map(|i| i.macro_f1[1])),
                metrics.weighted.f1.to_string(),
                top(3),
                top(5),
                or_empty(metrics.expected_calibration_error),
                or_empty(row.constant.get(part).copied()),
                or_empty(row.extraction.map(|e| e.seconds)),
                or_empty(row.training_seconds),
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
        "p: McNemar's exact two-sided test on the clips that both predicted; Holm corrects it for the number of pairs. It \
         takes clips as independent: where there are groups, trust the interval of the difference, which draws groups."
            .to_string(),
        "ECE: expected calibration error of the highest probability, 15 equal bins.".to_string(),
    ];
    if comparison.rows.iter().any(|row| row.kind == Kind::LateFusion) {
        notes.push("Late fusion: the mean of the runs' probabilities; the best pair is chosen on validation.".into());
    }
    if comparison.rows.iter().any(|row| row.kind == Kind::EarlyFusion) {
        notes.push("Early fusion: one classifier on the methods' standardised features side by side.".into());
    }
    notes
}

fn untrained(comparison: &Comparison) -> Option<String> {
    let names: Vec<&str> = comparison.rows.iter().filter(|row| row.untrained).map(|row| row.name.as_str()).collect();
    (!names.is_empty()).then(|| format!("{UNTRAINED} Concerned: {}.", names.join("; ")))
}

fn markdown(comparison: &Comparison, pictures: &[Picture]) -> String {
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
    for picture in pictures {
        text.push_str(&format!("\n![{}]({})\n", escape(&picture.caption), picture.file));
    }
    text.push_str("\n## Notes\n\n");
    for note in notes(comparison) {
        text.push_str(&format!("- {note}\n"));
    }
    text
}

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fff;--ink:#1f2328;--dim:#5a6370;--rule:#d5dae0;--mark:#eef4fa;--alarm:#8a1c00;--alarm-paper:#fff0e9}
@media (prefers-color-scheme:dark){:root{--paper:#15191e;--ink:#e6e9ed;--dim:#9aa5b1;--rule:#343c46;--mark:#1d2a37;--alarm:#ffb59c;--alarm-paper:#3a1d14}}
body{margin:0 auto;padding:1.5rem;max-width:1200px;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}p,li{max-width:75ch}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.92em}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--rule);text-align:left;white-space:nowrap}
th{color:var(--dim);font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}.best td{background:var(--mark);font-weight:600}
.alarm{border:2px solid var(--alarm);background:var(--alarm-paper);color:var(--alarm);padding:.8rem 1rem;font-weight:700}
.warning{border-left:4px solid #e69f00;padding:.2rem .8rem;margin:.5rem 0;overflow-wrap:anywhere}
.side{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1rem}figure{margin:0;overflow-x:auto}
svg{max-width:100%;height:auto}footer{color:var(--dim);font-size:.9em}";

fn html(comparison: &Comparison, pictures: &[Picture]) -> String {
    let mut body = String::from("<h1>kinoprobe: comparison</h1>\n");
    if let Some(banner) = untrained(comparison) {
        body.push_str(&format!("<div class=\"alarm\" role=\"alert\">⚠ {}</div>\n", escape(&banner)));
    }
    for warning in &comparison.warnings {
        body.push_str(&format!("<div class=\"warning\">{}</div>\n", escape(warning)));
    }
    let figure =
        |picture: &Picture| format!("<figure aria-label=\"{}\">{}</figure>\n", escape(&picture.caption), picture.svg);
    let mut bars = pictures.iter().filter(|picture| !picture.matrix);
    for (heading, table) in tables(comparison) {
        body.push_str(&format!("<h2>{}</h2>\n{}", escape(&heading), table.html()));
        // The parts' tables come first, in the order of their bars.
        if let Some(picture) = bars.next() {
            body.push_str(&figure(picture));
        }
    }
    body.push_str("<h2>Confusion matrices</h2>\n<div class=\"side\">\n");
    for picture in pictures.iter().filter(|picture| picture.matrix) {
        body.push_str(&figure(picture));
    }
    body.push_str("</div>\n");
    for duplicates in &comparison.duplicates {
        let mut table = Table::new(&["clip", "closest twin", "its split", "cosine"], 3);
        table.rows = duplicates
            .pairs
            .iter()
            .map(|twin| {
                vec![twin.id.clone(), twin.twin.clone(), twin.twin_part.name().into(), format!("{:.5}", twin.cosine)]
            })
            .collect();
        let what = format!("Near-duplicates of {} clips in {}", duplicates.part.name(), duplicates.store.display());
        body.push_str(&format!("<h2>{}</h2>\n{}", escape(&what), table.html()));
    }
    body.push_str("<footer><h2>Notes</h2><ul>\n");
    for note in notes(comparison) {
        body.push_str(&format!("<li>{}</li>\n", escape(&note)));
    }
    body.push_str(&format!("<li>kinoprobe {}</li></ul></footer>\n", env!("CARGO_PKG_VERSION")));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>kinoprobe: comparison</title>\n<style>\n{STYLE}\n</style></head>\n<body>\n{body}</body></html>\n"
    )
}

/// The tables, warnings and banner for the terminal; the pairs only of the part that matters most.
pub fn summary(comparison: &Comparison) -> String {
    let mut text = String::new();
    let mut pairs = 0;
    for (heading, table) in tables(comparison) {
        pairs += usize::from(heading.starts_with(PAIRS));
        if pairs < 2 {
            text.push_str(&format!("{heading}\n{}\n", table.text()));
        }
    }
    for warning in &comparison.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    if let Some(banner) = untrained(comparison) {
        text.push_str(&format!("⚠ {banner}\n"));
    }
    text
}
