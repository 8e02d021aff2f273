//! Reading a store.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use hdf5::types::{FixedAscii, VarLenAscii, VarLenUnicode};
use hdf5::{File, H5Type};
use ndarray::{Array2, Axis, s};

use super::layout::{Payload, Provenance, wrong};
use super::{ClipRows, Failure, Pooling, Row, StoredClip, Values};
use crate::error::{Error, Result};

/// A store opened for reading: who made it, its clips and its failures are in memory, its rows are read on demand.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    file: File,
    payload: Payload,
    provenance: Provenance,
    clips: Vec<StoredClip>,
    failures: Vec<Failure>,
}

impl Store {
    /// Opens a store of either kind.
    ///
    /// # Errors
    /// The file is missing, is not HDF5, is not a store, or lacks a dataset.
    pub fn open(path: &Path) -> Result<Self> {
        std::fs::metadata(path).map_err(Error::io(path))?;
        let file = File::open(path).map_err(wrong(path))?;
        let (provenance, payload) = Provenance::read(&file, path)?;
        let mut store =
            Self { path: path.to_path_buf(), file, payload, provenance, clips: Vec::new(), failures: Vec::new() };
        store.clips = store.read_clips()?;
        store.failures = store.read_failures()?;
        Ok(store)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the store was made.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// What its rows hold.
    pub fn payload(&self) -> Payload {
        self.payload
    }

    /// Its clips, in the manifest's order.
    pub fn clips(&self) -> &[StoredClip] {
        &self.clips
    }

    /// Clips that failed.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Number of rows R.
    pub fn row_count(&self) -> usize {
        self.clips.last().map_or(0, |clip| clip.offset + clip.length)
    }

    /// Where every row comes from, R of them.
    pub fn rows(&self) -> Result<Vec<Row>> {
        self.rows_of(0..self.row_count())
    }

    /// Fails where the store holds something else.
    ///
    /// # Errors
    /// The kind or the length of its rows differs from `wanted`.
    pub fn refuse_payload(&self, wanted: Payload) -> Result<()> {
        if self.payload == wanted {
            return Ok(());
        }
        Err(self.wrong(format!("it holds {:?}, not {wanted:?}; write to another file with --out", self.payload)))
    }

    /// A clip with its rows, as a writer takes it.
    pub fn read_clip(&self, index: usize) -> Result<ClipRows> {
        let clip = self.clips[index].clone();
        let range = clip.offset..clip.offset + clip.length;
        let values = match self.payload {
            Payload::Features { .. } => Values::Features(self.matrix("features", range.clone())?),
            Payload::Descriptors { .. } => {
                let start = self.value_offset(range.start)?;
                let counts = self.vector::<u32>("rows/descriptors", range.clone())?;
                let total: usize = counts.iter().map(|&n| n as usize).sum();
                Values::Descriptors { counts, values: self.matrix("descriptors", start..start + total)? }
            }
        };
        Ok(ClipRows {
            id: clip.id,
            path: clip.path,
            frame_count: clip.frame_count,
            fps: clip.fps,
            duration_seconds: clip.duration_seconds,
            rows: self.rows_of(range)?,
            values,
        })
    }

    /// The first descriptor of row `row`; 0 for feature stores.
    fn value_offset(&self, row: usize) -> Result<usize> {
        match self.payload {
            Payload::Features { .. } => Ok(0),
            Payload::Descriptors { .. } => {
                Ok(self.vector::<u32>("rows/descriptors", 0..row)?.iter().map(|&n| n as usize).sum())
            }
        }
    }

    fn rows_of(&self, range: Range<usize>) -> Result<Vec<Row>> {
        let start_frame = self.vector::<u64>("rows/start_frame", range.clone())?;
        let start_seconds = self.vector::<f64>("rows/start_seconds", range.clone())?;
        let end_seconds = self.vector::<f64>("rows/end_seconds", range.clone())?;
        let padded = self.vector::<u8>("rows/padded", range.clone())?;
        Ok((0..range.len())
            .map(|i| Row {
                start_frame: start_frame[i],
                start_seconds: start_seconds[i],
                end_seconds: end_seconds[i],
                padded: padded[i] != 0,
            })
            .collect())
    }

    /// The clips. Ids, offsets and lengths are required; paths and times are empty and 0 where another program left them
    /// out.
    fn read_clips(&self) -> Result<Vec<StoredClip>> {
        let id = self.texts("clips/id")?;
        let offset = self.all::<u64>("clips/offset")?;
        let length = self.all::<u64>("clips/length")?;
        let count = id.len();
        let path = if self.has("clips/path") { self.texts("clips/path")? } else { vec![String::new(); count] };
        let times = |name: &str| if self.has(name) { self.all::<f64>(name) } else { Ok(vec![0.0; count]) };
        let (fps, duration_seconds) = (times("clips/fps")?, times("clips/duration_seconds")?);
        let frame_count = match self.has("clips/frame_count") {
            true => self.all::<u64>("clips/frame_count")?,
            false => vec![0; count],
        };
        let lengths = [path.len(), offset.len(), length.len(), frame_count.len(), fps.len(), duration_seconds.len()];
        if lengths.iter().any(|&n| n != count) {
            return Err(self.wrong("damaged: the datasets below /clips differ in length".into()));
        }
        let mut next = 0;
        let mut clips = Vec::with_capacity(count);
        for (i, (id, path)) in id.into_iter().zip(path).enumerate() {
            if offset[i] != next {
                return Err(self.wrong(format!("damaged: clip {id} begins at row {}, not {next}", offset[i])));
            }
            next += length[i];
            clips.push(StoredClip {
                id,
                path,
                offset: offset[i] as usize,
                length: length[i] as usize,
                frame_count: frame_count[i],
                fps: fps[i],
                duration_seconds: duration_seconds[i],
            });
        }
        let rows = match self.payload {
            Payload::Features { .. } => self.length("features")?,
            Payload::Descriptors { .. } => self.length("rows/descriptors")?,
        };
        if rows as u64 != next {
            return Err(self.wrong(format!("damaged: its clips have {next} rows, but {rows} are there")));
        }
        Ok(clips)
    }

    fn read_failures(&self) -> Result<Vec<Failure>> {
        if self.file.group("failures").is_err() {
            return Ok(Vec::new());
        }
        let id = self.texts("failures/id")?;
        let stage = self.texts("failures/stage")?;
        let error = self.texts("failures/error")?;
        Ok(id.into_iter().zip(stage).zip(error).map(|((id, stage), error)| Failure { id, stage, error }).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.file.dataset(name).is_ok()
    }

    fn dataset(&self, name: &str) -> Result<hdf5::Dataset> {
        self.file.dataset(name).map_err(|_| self.wrong(format!("damaged: the dataset /{name} is missing")))
    }

    fn length(&self, name: &str) -> Result<usize> {
        Ok(self.dataset(name)?.shape().first().copied().unwrap_or(0))
    }

    fn all<T: H5Type>(&self, name: &str) -> Result<Vec<T>> {
        self.dataset(name)?.read_raw::<T>().map_err(wrong(&self.path))
    }

    fn texts(&self, name: &str) -> Result<Vec<String>> {
        let of_length =
            self.all::<VarLenUnicode>(name).map(|texts| texts.iter().map(|text| text.to_string()).collect());
        // h5py writes `bytes` as ASCII, of variable or of fixed length.
        let texts = of_length
            .or_else(|_| self.all::<VarLenAscii>(name).map(|texts| texts.iter().map(|text| text.to_string()).collect()))
            .or_else(|_| {
                self.all::<FixedAscii<256>>(name).map(|texts| texts.iter().map(|text| text.to_string()).collect())
            });
        texts.map_err(|_: Error| self.wrong(format!("the dataset /{name} holds no text that can be read")))
    }

    fn vector<T: H5Type>(&self, name: &str, range: Range<usize>) -> Result<Vec<T>> {
        let values = self.dataset(name)?.read_slice_1d::<T, _>(s![range]).map_err(wrong(&self.path))?;
        Ok(values.into_raw_vec_and_offset().0)
    }

    fn matrix<T: H5Type>(&self, name: &str, range: Range<usize>) -> Result<Array2<T>> {
        let dataset = self.dataset(name)?;
        if range.is_empty() {
            return Ok(Array2::from_shape_fn((0, self.payload.dim()), |_| unreachable!("no element")));
        }
        dataset.read_slice_2d::<T, _>(s![range, ..]).map_err(wrong(&self.path))
    }

    fn wrong(&self, message: String) -> Error {
        Error::Store { path: self.path.clone(), message }
    }
}

/// A store of features.
#[derive(Debug)]
pub struct FeatureStore(Store);

impl FeatureStore {
    /// Opens a feature store.
    ///
    /// # Errors
    /// As [`Store::open`]; or it is a descriptor store.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Store::open(path)?;
        match store.payload {
            Payload::Features { .. } => Ok(Self(store)),
            Payload::Descriptors { .. } => {
                Err(store.wrong("a descriptor store: make a feature store of it with kinoprobe-codebook".into()))
            }
        }
    }

    /// Features a row, D.
    pub fn dim(&self) -> usize {
        self.payload.dim()
    }

    /// The rows `range` of the features, (rows, D).
    pub fn features(&self, range: Range<usize>) -> Result<Array2<f32>> {
        self.matrix("features", range)
    }

    /// One vector a clip, (N, D): as stored, or else made of the rows here.
    ///
    /// # Errors
    /// The rows are to be a sequence; or they cannot be read.
    pub fn pooled(&self, pooling: Pooling) -> Result<Array2<f32>> {
        let name = match pooling {
            Pooling::Mean => "pooled/mean",
            Pooling::Max => "pooled/max",
            Pooling::None => return Err(self.wrong("a sequence of rows is no one vector a clip".into())),
        };
        if self.has(name) {
            return self.matrix(name, 0..self.clips.len());
        }
        let mut pooled = Array2::zeros((self.clips.len(), self.dim()));
        for (clip, mut vector) in self.clips.iter().zip(pooled.rows_mut()) {
            let rows = self.features(clip.offset..clip.offset + clip.length)?;
            if rows.is_empty() {
                return Err(self.wrong(format!("clip {} has no row", clip.id)));
            }
            match pooling {
                Pooling::Max => vector.assign(&rows.fold_axis(Axis(0), f32::NEG_INFINITY, |most, &x| most.max(x))),
                _ => vector.assign(&(rows.mapv(f64::from).sum_axis(Axis(0)) / rows.nrows() as f64).mapv(|x| x as f32)),
            }
        }
        Ok(pooled)
    }

    /// Whether the features come from untrained (seeded) weights.
    pub fn untrained(&self) -> bool {
        self.provenance.untrained()
    }
}

impl Deref for FeatureStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.0
    }
}

/// A store of local descriptors.
#[derive(Debug)]
pub struct DescriptorStore(Store);

impl DescriptorStore {
    /// Opens a descriptor store.
    ///
    /// # Errors
    /// As [`Store::open`]; or it is a feature store.
    pub fn open(path: &Path) -> Result<Self> {
        let store = Store::open(path)?;
        match store.payload {
            Payload::Descriptors { .. } => Ok(Self(store)),
            Payload::Features { .. } => Err(store.wrong("a feature store, not a descriptor store".into())),
        }
    }

    /// How many descriptors each row (frame) has, R of them.
    pub fn row_lengths(&self) -> Result<Vec<u32>> {
        self.vector("rows/descriptors", 0..self.row_count())
    }

    /// The descriptors `range`, (descriptors, D).
    pub fn descriptors(&self, range: Range<usize>) -> Result<Array2<u8>> {
        self.matrix("descriptors", range)
    }
}

impl Deref for DescriptorStore {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.0
    }
}
