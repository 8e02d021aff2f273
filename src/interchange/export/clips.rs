//! What is known about the clips, and the rows, of an export.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use super::{Features, create};
use crate::error::{Error, Result};
use crate::manifest::{Clip, Manifest, Split};
use crate::store::{FeatureStore, Pooling, RowSource, StoredClip};

/// The clips of a store with what the manifest says about them.
pub(super) struct ClipTable<'a> {
    pub store: &'a FeatureStore,
    /// The manifest's clips; `None` for those that are not in the manifest.
    clips: Vec<Option<&'a Clip>>,
    /// Name of the column of the labels: `label`, or `labels` if a clip has several; `None` without a manifest.
    pub label_column: Option<&'static str>,
    /// A clip has a group.
    pub has_groups: bool,
    /// Sources of all rows, if rows are exported.
    pub rows: Option<Vec<RowSource>>,
}

impl<'a> ClipTable<'a> {
    pub fn new(store: &'a FeatureStore, manifest: Option<&'a Manifest>, pooling: Pooling) -> Result<Self> {
        let known: HashMap<&str, &Clip> =
            manifest.iter().flat_map(|manifest| &manifest.clips).map(|clip| (clip.id.as_str(), clip)).collect();
        let clips: Vec<Option<&Clip>> = store.clips().iter().map(|clip| known.get(clip.id.as_str()).copied()).collect();
        let several = clips.iter().flatten().any(|clip| clip.labels.len() > 1);
        Ok(Self {
            store,
            label_column: manifest.map(|_| if several { "labels" } else { "label" }),
            has_groups: clips.iter().flatten().any(|clip| clip.group.is_some()),
            clips,
            rows: (pooling == Pooling::None).then(|| store.rows()).transpose()?,
        })
    }

    /// Returns the clip of the store.
    pub fn stored(&self, clip: usize) -> &StoredClip {
        &self.store.clips()[clip]
    }

    pub fn labels(&self, clip: usize) -> &[String] {
        self.clips[clip].map_or(&[], |clip| &clip.labels)
    }

    /// Returns the name of the clip's split.
    pub fn split(&self, clip: usize) -> Option<&'static str> {
        self.clips[clip]?.split.map(Split::name)
    }

    pub fn group(&self, clip: usize) -> Option<&str> {
        self.clips[clip]?.group.as_deref()
    }

    /// Returns the indices of the vectors of a clip.
    pub fn vectors(&self, clip: usize) -> Range<usize> {
        match &self.rows {
            None => clip..clip + 1,
            Some(_) => {
                let StoredClip { offset, length, .. } = self.store.clips()[clip];
                offset..offset + length
            }
        }
    }

    /// Returns the clip of each vector.
    pub fn owners(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.clips.len()).flat_map(|clip| self.vectors(clip).map(move |_| clip))
    }

    /// Writes one line per vector: the clip, the row if rows are exported, and the features, if any.
    pub fn write_csv(&self, path: &Path, features: Option<&Features<'_>>) -> Result<()> {
        let mut writer = csv::Writer::from_writer(create(path)?);
        let csv_error = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => Error::io(path)(error),
            other => Error::Config { path: path.to_path_buf(), message: format!("{other:?}") },
        };
        let mut header = vec!["id", "path"];
        header.extend(self.label_column);
        header.extend(self.label_column.map(|_| "split"));
        header.extend(self.has_groups.then_some("group"));
        if self.rows.is_some() {
            header.extend(["row", "start_frame", "start_seconds", "end_seconds", "padded", "scale"]);
        }
        let names: Vec<String> = (0..features.map_or(0, |_| self.store.dim())).map(|i| format!("f{i}")).collect();
        header.extend(names.iter().map(String::as_str));
        writer.write_record(&header).map_err(csv_error)?;
        let mut owners = self.owners().enumerate();
        let mut write = |vector: Option<ndarray::ArrayView1<'_, f32>>| -> Result<bool> {
            let Some((row, clip)) = owners.next() else { return Ok(false) };
            writer
                .write_record(self.fields(clip, row).into_iter().chain(vector.iter().flatten().map(f32::to_string)))
                .map_err(csv_error)?;
            Ok(true)
        };
        match features {
            None => while write(None)? {},
            Some(features) => {
                for block in features.blocks() {
                    for vector in block?.rows() {
                        write(Some(vector))?;
                    }
                }
            }
        }
        writer.flush().map_err(Error::io(path))
    }

    /// Returns the fields that describe a vector.
    fn fields(&self, clip: usize, row: usize) -> Vec<String> {
        let stored = self.stored(clip);
        let mut fields = vec![stored.id.clone(), stored.path.clone()];
        if self.label_column.is_some() {
            fields.push(self.labels(clip).join("|"));
            fields.push(self.split(clip).unwrap_or_default().to_string());
        }
        if self.has_groups {
            fields.push(self.group(clip).unwrap_or_default().to_string());
        }
        if let Some(rows) = &self.rows {
            let source = &rows[row];
            fields.extend([(row - stored.offset).to_string(), source.start_frame.to_string()]);
            fields.extend([source.start_seconds, source.end_seconds].map(|seconds| seconds.to_string()));
            fields.extend([u8::from(source.padded).to_string(), source.scale.to_string()]);
        }
        fields
    }
}
