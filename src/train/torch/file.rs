//! Tensors in `.safetensors` files.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use kinoprobe::error::{Error, Result};
use kinoprobe::files;
use kinoprobe::models::checkpoint::Checkpoint;
use safetensors::tensor::{Dtype, TensorView};
use tch::{Device, Kind, Tensor};

use super::{shape, torch};

/// Writes f32 tensors and metadata. The file is written under a temporary name and renamed, so that a file of that name is
/// always complete.
///
/// # Errors
/// Returns an error if the file cannot be written, for example because the disk is full; an existing file is then unchanged.
pub fn save(path: &Path, tensors: &[(String, Tensor)], metadata: &HashMap<String, String>) -> Result<()> {
    let bytes = tensors.iter().map(|(name, tensor)| {
        let values = values(tensor)?;
        let size: Vec<usize> = tensor.size().iter().map(|length| *length as usize).collect();
        Ok((name, size, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()))
    });
    let bytes = bytes.collect::<Result<Vec<_>>>()?;
    let views = bytes.iter().map(|(name, size, bytes)| {
        let view = TensorView::new(Dtype::F32, size.clone(), bytes).expect("the values match the shape");
        (name.as_str(), view)
    });
    let invalid =
        |error: safetensors::SafeTensorError| Error::Weights { path: path.into(), message: error.to_string() };
    let bytes = safetensors::serialize(views, Some(metadata.clone())).map_err(invalid)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let written = std::fs::File::create(&new)
        .and_then(|mut file| std::io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        Error::io(path)(error)
    })?;
    files::rename(&new, path).map_err(Error::io(path))
}

/// Reads all tensors of a file as f32.
///
/// # Errors
/// Returns an error if the file cannot be read or is malformed.
pub fn load(path: &Path, device: Device) -> Result<BTreeMap<String, Tensor>> {
    let checkpoint = Checkpoint::open(path)?;
    let tensors = checkpoint.tensors.into_iter().map(|(name, stored)| {
        let values = torch(Tensor::f_from_slice(&stored.read()?))?;
        let tensor = torch(values.f_reshape(shape(stored.shape())).and_then(|tensor| tensor.f_to_device(device)))?;
        Ok((name, tensor))
    });
    tensors.collect()
}

/// Returns the values of a tensor in row-major order, as f32.
///
/// # Errors
/// Returns an error if libtorch runs out of memory.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.detach().f_to_device(Device::Cpu).and_then(|tensor| tensor.f_to_kind(Kind::Float));
    torch(flat.and_then(|tensor| tensor.f_reshape([-1])).and_then(|tensor| Vec::<f32>::try_from(&tensor)))
}
