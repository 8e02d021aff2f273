//! `.safetensors`: eight bytes of header length, a JSON header, the data. Only the header is read here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::pickle::Dtype;
use super::{Source, Tensor};

/// What the reference implementation allows.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

pub(super) fn read(source: &Arc<Source>) -> Result<BTreeMap<String, Tensor>, String> {
    let len = source.read(0, 8)?.try_into().map(u64::from_le_bytes).expect("eight bytes were read");
    if len > MAX_HEADER || len > source.len - 8 {
        return Err(format!("claims a header of {len} bytes"));
    }
    let header = source.read(8, len)?;
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| format!("has a damaged header ({e})"))?;
    let data = 8 + len;
    let mut tensors = BTreeMap::new();
    for (name, entry) in header {
        if name == "__metadata__" {
            continue;
        }
        let tensor = serde_json::from_value::<Entry>(entry)
            .map_err(|e| e.to_string())
            .and_then(|entry| {
                let dtype = dtype(&entry.dtype).ok_or_else(|| format!("element type {} is not read", entry.dtype))?;
                let [start, end] = entry.data_offsets;
                let bytes = end.checked_sub(start).ok_or("ends before it starts")?;
                let position = data.checked_add(start).ok_or("starts beyond the end of the file")?;
                let count = entry.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
                if count.and_then(|n| n.checked_mul(dtype.size() as u64)) != Some(bytes) {
                    return Err(format!("its shape {:?} does not fit its {bytes} bytes", entry.shape));
                }
                let mut strides = vec![1u64; entry.shape.len()];
                for axis in (1..strides.len()).rev() {
                    strides[axis - 1] = strides[axis].saturating_mul(entry.shape[axis]);
                }
                Tensor::new(source, dtype, (position, bytes / dtype.size() as u64), 0, &entry.shape, &strides)
            })
            .map_err(|e| format!("tensor {name}: {e}"))?;
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "F64" => Dtype::F64,
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::Bf16,
        "I64" => Dtype::I64,
        "I32" => Dtype::I32,
        "I16" => Dtype::I16,
        "I8" => Dtype::I8,
        "U8" => Dtype::U8,
        "BOOL" => Dtype::Bool,
        _ => return None,
    })
}
