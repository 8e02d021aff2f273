//! Attributes, strings and errors of HDF5 files.

use std::path::Path;

use hdf5::types::{FixedAscii, FixedUnicode, VarLenAscii, VarLenUnicode};
use hdf5::{Group, H5Type};

use crate::error::Error;

/// Writes a scalar attribute. An existing attribute is overwritten.
pub(super) fn write_attribute<T: H5Type>(group: &Group, name: &str, value: T) -> hdf5::Result<()> {
    let attribute = match group.attr(name) {
        Ok(attribute) => attribute,
        Err(_) => group.new_attr::<T>().create(name)?,
    };
    attribute.write_scalar(&value)
}

/// Writes a string attribute. An existing attribute is overwritten.
pub(super) fn write_text(group: &Group, name: &str, value: &str) -> hdf5::Result<()> {
    write_attribute(group, name, hdf5_text(value))
}

/// Reads an integer attribute.
pub(super) fn read_integer(group: &Group, name: &str) -> Option<i64> {
    group.attr(name).ok()?.read_scalar::<i64>().ok()
}

/// Reads a floating-point attribute.
pub(super) fn read_float(group: &Group, name: &str) -> Option<f64> {
    group.attr(name).ok()?.read_scalar::<f64>().ok()
}

/// Reads a string attribute: variable-length UTF-8, as kinoprobe and h5py write it, fixed-length or ASCII.
pub(super) fn read_text(group: &Group, name: &str) -> Option<String> {
    let attribute = group.attr(name).ok()?;
    (attribute.read_scalar::<VarLenUnicode>().map(|text| text.to_string()))
        .or_else(|_| attribute.read_scalar::<VarLenAscii>().map(|text| text.to_string()))
        .or_else(|_| attribute.read_scalar::<FixedUnicode<4096>>().map(|text| text.to_string()))
        .or_else(|_| attribute.read_scalar::<FixedAscii<4096>>().map(|text| text.to_string()))
        .ok()
}

/// Converts a string to HDF5's type. NUL is replaced, since it would end the string.
pub(super) fn hdf5_text(value: &str) -> VarLenUnicode {
    value.replace('\0', "\u{fffd}").parse().expect("the text has no NUL")
}

/// Returns a function that converts errors of HDF5 to errors that name the file; for `map_err`.
pub(super) fn store_error(path: &Path) -> impl Fn(hdf5::Error) -> Error {
    let path = path.to_path_buf();
    move |error| {
        let reason = error.to_string();
        let message = if reason.contains("unable to lock file") || reason.contains("already open") {
            "locked by another process: wait for it, or set HDF5_USE_FILE_LOCKING=FALSE if the file system has no locks"
                .to_string()
        } else if reason.contains("file signature not found") || reason.contains("truncated file") {
            "not an HDF5 file, or truncated".to_string()
        } else {
            format!("HDF5: {reason}")
        };
        Error::Store { path: path.clone(), message }
    }
}
