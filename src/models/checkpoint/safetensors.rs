//! Reader of `.safetensors` files: the header length in eight bytes, a JSON header, and the data, which is not read here.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::tensor::{Dtype, Source, Tensor};

/// Maximum header length, that of the reference implementation.
const MAX_HEADER: u64 = 100_000_000;

#[derive(Deserialize)]
struct TensorHeader {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

pub(super) fn read(source: &Arc<Source>) -> Result<BTreeMap<String, Tensor>, String> {
    let len = source.read(0, 8)?.try_into().map(u64::from_le_bytes).expect("read returns eight bytes");
    if len > MAX_HEADER || len > source.len - 8 {
        return Err(format!("invalid header length {len}"));
    }
    let header = source.read(8, len)?;
    let headers: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&header).map_err(|e| format!("invalid header ({e})"))?;
    let data = 8 + len;
    let mut tensors = BTreeMap::new();
    for (name, header) in headers {
        if name == "__metadata__" {
            continue;
        }
        let tensor = serde_json::from_value::<TensorHeader>(header)
            .map_err(|e| e.to_string())
            .and_then(|header| {
                let dtype = dtype(&header.dtype).ok_or_else(|| format!("unsupported element type {}", header.dtype))?;
                let [start, end] = header.data_offsets;
                let bytes = end.checked_sub(start).ok_or("data_offsets are reversed")?;
                let position = data.checked_add(start).ok_or("data_offsets exceed the file")?;
                let count = header.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d));
                if count.and_then(|n| n.checked_mul(dtype.size() as u64)) != Some(bytes) {
                    return Err(format!("shape {:?} does not match {bytes} bytes", header.shape));
                }
                let mut strides = vec![1u64; header.shape.len()];
                for axis in (1..strides.len()).rev() {
                    strides[axis - 1] = strides[axis].saturating_mul(header.shape[axis]);
                }
                Tensor::new(source, dtype, (position, bytes / dtype.size() as u64), 0, &header.shape, &strides)
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
