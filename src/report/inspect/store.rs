//! Describes stores.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::Path;

use ndarray::Array2;

use super::{Inspection, project};
use crate::error::{Error, Result};
use crate::interchange::export::{self, ExportOptions};
use crate::manifest::Manifest;
use crate::report::markdown::UNTRAINED;
use crate::report::{plots, write, write_records};
use crate::store::{FeatureStore, Payload, Pooling, Store};

/// Number of rows read at once.
const BLOCK_ROWS: usize = 4096;
/// Maximum number of listed features or failures.
const MAX_LISTED: usize = 10;

/// Statistics of one feature over all rows.
#[derive(Debug, Clone, Copy)]
struct ColumnStatistics {
    count: usize,
    not_finite: usize,
    mean: f64,
    squares: f64,
    low: f32,
    high: f32,
}

impl ColumnStatistics {
    const EMPTY: Self =
        Self { count: 0, not_finite: 0, mean: 0.0, squares: 0.0, low: f32::INFINITY, high: f32::NEG_INFINITY };

    /// Adds a value by Welford's algorithm.
    fn add(&mut self, value: f32) {
        if !value.is_finite() {
            self.not_finite += 1;
            return;
        }
        self.count += 1;
        let value64 = f64::from(value);
        let delta = value64 - self.mean;
        self.mean += delta / self.count as f64;
        self.squares += delta * (value64 - self.mean);
        (self.low, self.high) = (self.low.min(value), self.high.max(value));
    }

    fn std(&self) -> f64 {
        (self.squares / self.count.max(1) as f64).sqrt()
    }

    fn is_constant(&self) -> bool {
        self.count > 0 && self.low == self.high
    }
}

/// Describes a store. With `out`, plots the first two principal components of its mean-pooled features, colored by the labels of
/// `manifest`, and writes statistics.csv (statistics of each feature), failures.csv and the export.
///
/// # Errors
/// Returns an error if the store is corrupt, a file cannot be written, a file of the export exists already, or an export of a descriptor
/// store is requested.
pub fn inspect_store(
    path: &Path,
    manifest: Option<&Manifest>,
    out: Option<&Path>,
    export: Option<ExportOptions<'_>>,
) -> Result<Inspection> {
    let store = Store::open(path)?;
    if let (Some(export), Some(out)) = (&export, out) {
        export.check_output(out)?;
    }
    let mut inspection = Inspection { failed: store.failures().len(), ..Inspection::default() };
    let mut print = |line: std::fmt::Arguments<'_>| {
        inspection.text.write_fmt(line).expect("writing to a string cannot fail");
        inspection.text.push('\n');
    };
    describe(&mut print, &store)?;
    if let Some(out) = out {
        std::fs::create_dir_all(out).map_err(Error::io(out))?;
        if !store.failures().is_empty() {
            let header = ["id", "stage", "error"].map(String::from).to_vec();
            let rows = store.failures().iter().map(|f| vec![f.id.clone(), f.stage.clone(), f.error.clone()]);
            write_records(&out.join("failures.csv"), std::iter::once(header).chain(rows))?;
            inspection.files.push(out.join("failures.csv"));
        }
    }
    let Payload::Features { dim } = store.payload() else {
        if export.is_some() {
            return Err(Error::Store {
                path: path.to_path_buf(),
                message: "cannot export a descriptor store: convert it to a feature store with kinoprobe-codebook"
                    .into(),
            });
        }
        return Ok(inspection);
    };
    let store = FeatureStore::open(path)?;
    let mut columns = vec![ColumnStatistics::EMPTY; dim];
    for block in blocks(&store) {
        for row in block?.outer_iter() {
            for (column, &value) in columns.iter_mut().zip(row) {
                column.add(value);
            }
        }
    }
    let mut print = |line: std::fmt::Arguments<'_>| {
        inspection.text.write_fmt(line).expect("writing to a string cannot fail");
        inspection.text.push('\n');
    };
    statistics(&mut print, &columns, store.row_count());
    let Some(out) = out else { return Ok(inspection) };
    let mut files = Vec::new();
    write_statistics(&out.join("statistics.csv"), &columns)?;
    files.push("statistics.csv");
    if !store.clips().is_empty() {
        let labels = labels(&store, manifest);
        let explained = plot_projection(&store, &labels, &out.join("projection.svg"))?;
        files.push("projection.svg");
        print(format_args!(
            "projection: two principal components, {:.1} % + {:.1} % of the variance{}",
            100.0 * explained[0],
            100.0 * explained[1],
            if manifest.is_none() { "; color it by label with --manifest" } else { "" }
        ));
    }
    inspection.files.extend(files.into_iter().map(|file| out.join(file)));
    if let Some(options) = &export {
        inspection.files.extend(export::export(&store, options, out)?);
    }
    Ok(inspection)
}

fn blocks(store: &FeatureStore) -> impl Iterator<Item = Result<Array2<f32>>> + '_ {
    let rows = store.row_count();
    (0..rows).step_by(BLOCK_ROWS).map(move |start| store.features(start..rows.min(start + BLOCK_ROWS)))
}

fn describe(print: &mut impl FnMut(std::fmt::Arguments<'_>), store: &Store) -> Result<()> {
    let provenance = store.provenance();
    let (clips, rows) = (store.clips(), store.row_count());
    if provenance.untrained() {
        print(format_args!("⚠ {UNTRAINED}"));
    }
    let payload = match store.payload() {
        Payload::Features { dim } => format!("features, {rows} rows × {dim}"),
        Payload::Descriptors { dim } => format!("descriptors, {rows} frames, {dim} values each"),
    };
    print(format_args!("{}: {payload}, {} clips", store.path().display(), clips.len()));
    let [hash, source_hash] =
        [&provenance.model_sha256, &provenance.source_sha256].map(|sha256| sha256.chars().take(12).collect::<String>());
    for (name, value) in [
        ("method", &provenance.method),
        ("model", &provenance.model),
        ("weights", &provenance.weights),
        ("model sha-256", &hash),
        ("decoder", &provenance.decoder),
        ("precision", &provenance.precision),
        ("provider", &provenance.provider),
        ("kinoprobe", &provenance.tool_version),
        ("created", &provenance.created),
        ("recipe", &provenance.recipe),
        ("source", &provenance.source),
        ("source sha-256", &source_hash),
    ] {
        if !value.is_empty() {
            print(format_args!("  {name:<14} {value}"));
        }
    }
    if store.is_virtual() {
        print(format_args!("  {:<14} the rows are in {} other stores", "virtual", store.source_count()));
    }
    let video: f64 = clips.iter().map(|clip| clip.duration_seconds).sum();
    if provenance.extract_seconds > 0.0 {
        print(format_args!(
            "  {:<14} {:.1} s, {:.2} clips/s",
            "extraction",
            provenance.extract_seconds,
            clips.len() as f64 / provenance.extract_seconds
        ));
    }
    let (frames, lengths) =
        (clips.iter().map(|clip| clip.frame_count).sum::<u64>(), clips.iter().map(|clip| clip.length));
    if let (Some(least), Some(most)) = (lengths.clone().min(), lengths.max()) {
        print(format_args!(
            "clips: {frames} frames, {video:.1} s; rows per clip: {least} to {most}, mean {:.1}",
            rows as f64 / clips.len() as f64
        ));
        let sources = store.rows()?;
        let padded = sources.iter().filter(|row| row.padded).count();
        print(format_args!("padded rows (window longer than clip): {padded} of {rows}"));
        let scaled: Vec<f64> = sources.iter().map(|row| row.scale).filter(|&scale| scale < 1.0).collect();
        if let Some(least) = scaled.iter().copied().reduce(f64::min) {
            let count = scaled.len();
            print(format_args!("rows of frames that were scaled down: {count} of {rows}, smallest scale {least:.3}"));
        }
    }
    let full = clips.iter().filter(|clip| clip.fully_decoded).count();
    print(format_args!("videos decoded completely, without a reliable index: {full}"));
    let failures = store.failures();
    print(format_args!("failures: {}", failures.len()));
    for failure in failures.iter().take(MAX_LISTED) {
        print(format_args!("  {} ({}): {}", failure.id, failure.stage, failure.error));
    }
    if failures.len() > MAX_LISTED {
        print(format_args!("  and {} more", failures.len() - MAX_LISTED));
    }
    Ok(())
}

fn statistics(print: &mut impl FnMut(std::fmt::Arguments<'_>), columns: &[ColumnStatistics], rows: usize) {
    let not_finite: usize = columns.iter().map(|column| column.not_finite).sum();
    print(format_args!("non-finite values: {not_finite} of {}", rows * columns.len()));
    let constant: Vec<String> =
        columns.iter().enumerate().filter(|(_, c)| c.is_constant()).map(|(i, _)| i.to_string()).collect();
    let named = constant.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join(", ");
    let named = match constant.len() {
        0 => String::new(),
        n if n > MAX_LISTED => format!(" ({named}, …)"),
        _ => format!(" ({named})"),
    };
    print(format_args!("constant features: {} of {}{named}", constant.len(), columns.len()));
    let range = |value: &dyn Fn(&ColumnStatistics) -> f64| {
        let values = columns.iter().filter(|column| column.count > 0).map(value);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
    };
    if columns.iter().any(|column| column.count > 0) {
        let (means, deviations) = (range(&|c| c.mean), range(&|c| c.std()));
        let values = (range(&|c| f64::from(c.low)).0, range(&|c| f64::from(c.high)).1);
        print(format_args!("values: {:.4} to {:.4}", values.0, values.1));
        print(format_args!("feature means: {:.4} to {:.4}", means.0, means.1));
        print(format_args!("feature standard deviations: {:.4} to {:.4}", deviations.0, deviations.1));
    }
}

fn write_statistics(path: &Path, columns: &[ColumnStatistics]) -> Result<()> {
    let header = ["feature", "not_finite", "mean", "std", "min", "max", "constant"].map(String::from).to_vec();
    let rows = columns.iter().enumerate().map(|(i, c)| {
        let mut record = vec![i.to_string(), c.not_finite.to_string()];
        if c.count > 0 {
            record.extend([c.mean, c.std()].map(|value| value.to_string()));
            record.extend([c.low, c.high].map(|value| value.to_string()));
        } else {
            record.extend([const { String::new() }; 4]);
        }
        record.push(u8::from(c.is_constant()).to_string());
        record
    });
    write_records(path, std::iter::once(header).chain(rows))
}

/// Returns the label of each clip of the store; multiple labels are joined by `|`.
fn labels(store: &FeatureStore, manifest: Option<&Manifest>) -> Vec<Option<String>> {
    let of_id: HashMap<&str, String> = manifest
        .map(|manifest| manifest.clips.iter().map(|clip| (clip.id.as_str(), clip.labels.join("|"))).collect())
        .unwrap_or_default();
    let label = |id: &str| of_id.get(id).filter(|label| !label.is_empty()).cloned();
    store.clips().iter().map(|clip| label(&clip.id)).collect()
}

fn plot_projection(store: &FeatureStore, labels: &[Option<String>], path: &Path) -> Result<[f64; 2]> {
    let projection = project(&store.pooled(Pooling::Mean)?);
    let mut classes: Vec<String> = labels.iter().flatten().cloned().collect();
    classes.sort_by(|a, b| natord::compare(a, b).then_with(|| a.cmp(b)));
    classes.dedup();
    let index: BTreeMap<&str, usize> = classes.iter().enumerate().map(|(i, class)| (class.as_str(), i)).collect();
    let class_of: Vec<Option<usize>> = labels.iter().map(|label| Some(index[label.as_deref()?])).collect();
    let ids: Vec<String> = store.clips().iter().map(|clip| clip.id.clone()).collect();
    let untrained = if store.untrained() { " (UNTRAINED)" } else { "" };
    let title = format!("{}{untrained}: mean-pooled features of {} clips", store.provenance().method, ids.len());
    let axis = |k: usize| format!("component {}: {:.1} % of the variance", k + 1, 100.0 * projection.explained[k]);
    let (x, y) = (axis(0), axis(1));
    write(path, &plots::scatter(&title, [&x, &y], &projection.points, &class_of, &classes, &ids))?;
    Ok(projection.explained)
}
