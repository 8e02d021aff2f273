//! Attributes, strings and errors of HDF5 files.

use std::path::Path;

use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Container, Group, H5Type, Location};

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

/// Reads a string attribute; see [`read_texts`].
pub(super) fn read_text(object: &Location, name: &str) -> Option<String> {
    let attribute = object.attr(name).ok()?;
    read_texts(&attribute).ok()?.pop()
}

/// Maximum length in bytes of fixed-length strings.
pub(super) const MAX_FIXED_LEN: usize = 1 << 16;

/// Reads all strings of a dataset or attribute: UTF-8 or ASCII, of variable length, as kinoprobe and h5py write them, or of a
/// fixed length up to [`MAX_FIXED_LEN`].
///
/// # Errors
/// Returns an error if the values are not such strings or cannot be read.
pub(super) fn read_texts(values: &Container) -> hdf5::Result<Vec<String>> {
    fn read<T: H5Type + ToString>(values: &Container) -> hdf5::Result<Vec<String>> {
        Ok(values.read_raw::<T>()?.iter().map(T::to_string).collect())
    }
    // HDF5 converts between fixed lengths, and pads or cuts strings. The Rust type must be longer than the stored strings,
    // since its last byte may have to be NUL.
    macro_rules! read_fixed {
        ($type:ident, $length:expr) => {
            match $length {
                0..=63 => read::<$type<64>>(values),
                64..=255 => read::<$type<256>>(values),
                256..=1023 => read::<$type<1024>>(values),
                1024..=8191 => read::<$type<8192>>(values),
                8192..=MAX_FIXED_LEN => read::<$type<{ MAX_FIXED_LEN + 1 }>>(values),
                length => Err(format!("strings of {length} bytes are longer than {MAX_FIXED_LEN}").into()),
            }
        };
    }
    match values.dtype()?.to_descriptor()? {
        TypeDescriptor::VarLenUnicode => read::<VarLenUnicode>(values),
        TypeDescriptor::VarLenAscii => read::<VarLenAscii>(values),
        TypeDescriptor::FixedUnicode(length) => read_fixed!(FixedUnicode, length),
        TypeDescriptor::FixedAscii(length) => read_fixed!(FixedAscii, length),
        other => Err(format!("{other} values are not strings").into()),
    }
}

/// Converts a string to HDF5's type. NUL is replaced, since it would end the string.
pub(super) fn hdf5_text(value: &str) -> VarLenUnicode {
    value.replace('\0', "\u{fffd}").parse().expect("the text has no NUL")
}

/// Returns the message of the operating system in an error of HDF5: `… errno = 28, error message = 'No space left on device', …`.
fn system_message(reason: &str) -> Option<&str> {
    let (_, message) = reason.split_once("error message = '")?;
    Some(message.split_once('\'')?.0)
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
        } else if let Some(cause) = system_message(&reason) {
            cause.to_string()
        } else {
            format!("HDF5: {reason}")
        };
        Error::Store { path: path.clone(), message }
    }
}
