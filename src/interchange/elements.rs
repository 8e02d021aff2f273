//! Elements of arrays: types, sizes and the conversion to f32.

use std::io::Read;

use ndarray::{ArrayD, IxDyn, ShapeBuilder};

use crate::memory;

/// Maximum factor by which deflate compresses: a match of 258 bytes needs at least two bits.
pub(super) const MAX_DEFLATE_RATIO: u64 = 1032;
/// Number of bytes read at once; a multiple of the sizes of all elements.
const BLOCK_LEN: usize = 1 << 16;

/// Type of an element in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ElementType {
    pub kind: NumberKind,
    pub big_endian: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKind {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl ElementType {
    /// Returns the number of bytes of an element.
    pub fn size(self) -> usize {
        match self.kind {
            NumberKind::I8 | NumberKind::U8 | NumberKind::Bool => 1,
            NumberKind::F16 | NumberKind::I16 | NumberKind::U16 => 2,
            NumberKind::F32 | NumberKind::I32 | NumberKind::U32 => 4,
            NumberKind::F64 | NumberKind::I64 | NumberKind::U64 => 8,
        }
    }

    /// Reads `count` elements as f32, rounded to nearest.
    pub fn read(self, input: &mut impl Read, count: usize) -> Result<Vec<f32>, String> {
        // The number of elements is not trusted: the vector grows as they are read.
        let mut values = Vec::with_capacity(count.min(1 << 20));
        let mut block = vec![0; BLOCK_LEN];
        let per_block = BLOCK_LEN / self.size();
        while values.len() < count {
            let block = &mut block[..per_block.min(count - values.len()) * self.size()];
            input.read_exact(block).map_err(|error| read_error(&error))?;
            self.convert(block, &mut values);
        }
        Ok(values)
    }

    /// Appends the elements in `bytes`.
    fn convert(self, bytes: &[u8], values: &mut Vec<f32>) {
        macro_rules! extend {
            ($type:ty, $convert:expr) => {{
                let (elements, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
                values.extend(elements.iter().map(|bytes| {
                    let value = match self.big_endian {
                        true => <$type>::from_be_bytes(*bytes),
                        false => <$type>::from_le_bytes(*bytes),
                    };
                    $convert(value)
                }))
            }};
        }
        match self.kind {
            NumberKind::F16 => extend!(half::f16, half::f16::to_f32),
            NumberKind::F32 => extend!(f32, |value| value),
            NumberKind::F64 => extend!(f64, |value| value as f32),
            NumberKind::I8 => extend!(i8, f32::from),
            NumberKind::I16 => extend!(i16, f32::from),
            NumberKind::I32 => extend!(i32, |value| value as f32),
            NumberKind::I64 => extend!(i64, |value| value as f32),
            NumberKind::U8 => extend!(u8, f32::from),
            NumberKind::U16 => extend!(u16, f32::from),
            NumberKind::U32 => extend!(u32, |value| value as f32),
            NumberKind::U64 => extend!(u64, |value| value as f32),
            NumberKind::Bool => extend!(u8, |value| f32::from(u8::from(value != 0))),
        }
    }
}

/// Describes an error of reading: the file is shorter than it declares, or the error of the operating system.
pub(super) fn read_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "truncated: it has fewer values than it declares".into(),
        _ => error.to_string(),
    }
}

/// Returns the number of elements of an array.
///
/// # Errors
/// Returns an error if they exceed `bytes`, the size in bytes of the data, or the available memory.
pub(super) fn element_count(shape: &[usize], size: usize, bytes: u64) -> Result<usize, String> {
    let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
    let declared = count.and_then(|count| count.checked_mul(size)).map(|declared| declared as u64);
    let (Some(count), Some(declared)) = (count, declared) else {
        return Err(format!("damaged: it declares {} values", super::describe_shape(shape)));
    };
    if declared > bytes {
        return Err(format!(
            "truncated or damaged: it declares {} values of {size} bytes, but has {bytes} bytes",
            super::describe_shape(shape)
        ));
    }
    check_memory(count)?;
    Ok(count)
}

/// Checks that `count` values of f32 fit into memory.
pub(super) fn check_memory(count: usize) -> Result<(), String> {
    let needed = count as u64 * size_of::<f32>() as u64;
    match memory::available() {
        Some(available) if needed > available => Err(format!(
            "{count} values need {} MiB of memory, but {} MiB are available: split the file, for example into one file per clip",
            needed >> 20,
            available >> 20
        )),
        _ => Ok(()),
    }
}

/// Returns the array with `values` in column-major order.
pub(super) fn from_column_major(shape: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, String> {
    let array = ArrayD::from_shape_vec(IxDyn(shape).f(), values).map_err(|error| error.to_string())?;
    Ok(array.as_standard_layout().into_owned())
}

/// Returns the array with `values` in row-major order.
pub(super) fn from_row_major(shape: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, String> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|error| error.to_string())
}
