//! Export as WebDataset shards: tar archives with the files of a clip next to each other, under a common key.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use serde_json::json;
use tar::{Builder, Header};

use super::clips::ClipTable;
use super::{Features, create};
use crate::error::{Error, Result};
use crate::interchange::npy::{write_header, write_values};

/// Number of clips in an archive.
const SHARD_CLIPS: usize = 10_000;

/// Writes archives with KEY.npy, of shape (D) or (rows, D), and KEY.json. The clips of a split are in archives of their own,
/// `SPLIT-000000.tar`; those without a split in `clips-000000.tar`. The key is the index of the clip in the store, since ids may
/// contain dots and slashes, which separate key and extension. Returns the archives.
pub(super) fn write(out: &Path, clips: &ClipTable<'_>, features: &Features<'_>) -> Result<Vec<PathBuf>> {
    let count = clips.store.clips().len();
    let mut files = Vec::new();
    for split in [Some("train"), Some("val"), Some("test"), None] {
        let members: Vec<usize> = (0..count).filter(|&clip| clips.split(clip) == split).collect();
        for (shard, members) in members.chunks(SHARD_CLIPS).enumerate() {
            let path = out.join(format!("{}-{shard:06}.tar", split.unwrap_or("clips")));
            write_shard(&path, clips, features, members)?;
            files.push(path);
        }
    }
    Ok(files)
}

fn write_shard(path: &Path, clips: &ClipTable<'_>, features: &Features<'_>, members: &[usize]) -> Result<()> {
    let mut archive = Builder::new(create(path)?);
    for &clip in members {
        let vectors = features.read(clips.vectors(clip))?;
        let shape = if clips.rows.is_some() { vec![vectors.nrows(), vectors.ncols()] } else { vec![vectors.ncols()] };
        let mut array = Vec::new();
        write_header(&mut array, &shape).and_then(|()| write_values(&mut array, &vectors)).map_err(Error::io(path))?;
        append(&mut archive, &format!("{clip:09}.npy"), &array).map_err(Error::io(path))?;
        let stored = clips.stored(clip);
        let description = json!({
            "id": stored.id,
            "path": stored.path,
            "labels": clips.labels(clip),
            "split": clips.split(clip),
            "group": clips.group(clip),
        });
        append(&mut archive, &format!("{clip:09}.json"), description.to_string().as_bytes())
            .map_err(Error::io(path))?;
    }
    let file = archive.into_inner().map_err(Error::io(path))?;
    file.into_inner().map_err(|error| Error::io(path)(error.into_error()))?;
    Ok(())
}

/// Appends a file with a fixed time, so that equal exports are equal files.
fn append(archive: &mut Builder<BufWriter<File>>, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    archive.append_data(&mut header, name, bytes)
}
