//! The protobuf messages of ONNX that are used here, with the field numbers of `onnx.proto`.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
}

/// The part of `ModelProto` that describes the model for other programs.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProperties {
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StringEntry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    /// Empty for the operators of ONNX itself.
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, optional, tag = "2")]
    pub f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub s: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
    /// Type of the value: 1 float, 2 int, 3 string, 6 floats, 7 ints, 8 strings.
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    /// [`FLOAT`], [`UINT8`], [`INT8`], [`INT64`] or [`DOUBLE`].
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueType {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub element: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dims: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub parameter: Option<String>,
}

/// Element type f32.
pub const FLOAT: i32 = 1;
/// Element type u8.
pub const UINT8: i32 = 2;
/// Element type i8.
#[cfg(feature = "onnx")]
pub const INT8: i32 = 3;
/// Element type of IEEE 754 half precision.
pub const FLOAT16: i32 = 10;
/// Element type i64.
pub const INT64: i32 = 7;
/// Element type f64.
pub const DOUBLE: i32 = 11;

impl NodeProto {
    /// Creates a node of ONNX's own domain with one output. The node and its output are both named `output`.
    pub fn new(operator: &str, inputs: &[&str], output: &str, attribute: Vec<Attribute>) -> Self {
        Self {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.into()],
            name: output.into(),
            op_type: operator.into(),
            attribute,
            domain: String::new(),
        }
    }
}

impl Attribute {
    pub fn int(name: &str, value: i64) -> Self {
        Self { name: name.into(), i: Some(value), kind: 2, ..Self::default() }
    }

    pub fn float(name: &str, value: f32) -> Self {
        Self { name: name.into(), f: Some(value), kind: 1, ..Self::default() }
    }

    pub fn string(name: &str, value: &str) -> Self {
        Self { name: name.into(), s: Some(value.into()), kind: 3, ..Self::default() }
    }

    pub fn ints(name: &str, values: &[usize]) -> Self {
        Self { name: name.into(), ints: values.iter().map(|v| *v as i64).collect(), kind: 7, ..Self::default() }
    }

    pub fn floats(name: &str, values: &[f32]) -> Self {
        Self { name: name.into(), floats: values.to_vec(), kind: 6, ..Self::default() }
    }

    pub fn strings(name: &str, values: &[&str]) -> Self {
        let strings = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        Self { name: name.into(), strings, kind: 8, ..Self::default() }
    }
}

impl TensorProto {
    /// Creates an f32 tensor from values in row-major order.
    pub fn floats(name: &str, shape: &[usize], values: &[f32]) -> Self {
        // Of the exact size: a vector that grows would have up to twice the size.
        let mut raw_data = Vec::with_capacity(size_of_val(values));
        values.iter().for_each(|v| raw_data.extend_from_slice(&v.to_le_bytes()));
        let dims = shape.iter().map(|d| *d as i64).collect();
        Self { dims, data_type: FLOAT, name: name.into(), raw_data }
    }

    /// Creates a vector of f64.
    pub fn doubles(name: &str, values: &[f64]) -> Self {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dims: vec![values.len() as i64], data_type: DOUBLE, name: name.into(), raw_data }
    }

    /// Creates a vector of i64.
    pub fn integers(name: &str, values: &[i64]) -> Self {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { dims: vec![values.len() as i64], data_type: INT64, name: name.into(), raw_data }
    }

    /// Creates an i8 tensor from values in row-major order.
    #[cfg(feature = "onnx")]
    pub fn bytes(name: &str, shape: &[usize], values: &[i8]) -> Self {
        let raw_data = values.iter().map(|&value| value as u8).collect();
        let dims = shape.iter().map(|d| *d as i64).collect();
        Self { dims, data_type: INT8, name: name.into(), raw_data }
    }

    /// Creates a scalar of type u8.
    #[cfg(feature = "onnx")]
    pub fn byte(name: &str, value: u8) -> Self {
        Self { dims: vec![], data_type: UINT8, name: name.into(), raw_data: vec![value] }
    }

    /// Creates a scalar of type i64.
    pub fn integer(name: &str, value: i64) -> Self {
        Self { dims: vec![], ..Self::integers(name, &[value]) }
    }
}

impl ValueInfo {
    /// Describes an f32 tensor of shape `(batch, sizes…)` with a dynamic batch size.
    pub fn batched(name: &str, sizes: &[i64]) -> Self {
        Self::tensor(
            name,
            std::iter::once(Dimension::dynamic("batch")).chain(sizes.iter().map(|&size| Dimension::fixed(size))),
        )
    }

    /// Describes an f32 tensor of shape `(batch, time, dim)` with dynamic batch size and time.
    pub fn sequences(name: &str, dim: i64) -> Self {
        Self::tensor(name, [Dimension::dynamic("batch"), Dimension::dynamic("time"), Dimension::fixed(dim)])
    }

    fn tensor(name: &str, dims: impl IntoIterator<Item = Dimension>) -> Self {
        let shape = Shape { dims: dims.into_iter().collect() };
        let tensor = TensorType { element: FLOAT, shape: Some(shape) };
        Self { name: name.into(), kind: Some(ValueType { tensor: Some(tensor) }) }
    }
}

impl Dimension {
    fn fixed(size: i64) -> Self {
        Self { value: Some(size), parameter: None }
    }

    fn dynamic(name: &str) -> Self {
        Self { value: None, parameter: Some(name.into()) }
    }
}
