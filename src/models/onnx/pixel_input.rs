//! Networks that normalize their input themselves: eight-bit pixels need a quarter of the transfer to a GPU.
//!
//! The file is not parsed as a whole: all fields other than the input are kept byte by byte, whatever version of ONNX they belong to.

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field};

use super::proto::{Attribute, FLOAT, GraphProto, NodeProto, TensorProto, UINT8, ValueInfo};
use crate::models::input::Normalization;

/// Field numbers of `ModelProto.graph`, `GraphProto.initializer` and `GraphProto.input`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const INPUT: u32 = 11;
/// What the name of the input is followed by in the names of what is added.
const SUFFIX: &str = "kinoprobe";

/// Returns the bytes of an ONNX file with the network in `onnx`, whose f32 input is replaced by one of unsigned bytes that are
/// normalized as `normalization` says. The operations are those of [`Normalization::apply`], so that results are equal.
///
/// # Errors
/// Returns a message if this is not an ONNX file, or the network does not have exactly one f32 input.
pub fn with_pixel_input(onnx: &[u8], normalization: &Normalization) -> Result<Vec<u8>, String> {
    let model = fields(onnx)?;
    let [graph] = &model.iter().filter(|field| field.number == GRAPH).collect::<Vec<_>>()[..] else {
        return Err("not an ONNX file with one graph".into());
    };
    let graph_fields = fields(graph.content)?;
    let mut initializers = Vec::new();
    for field in graph_fields.iter().filter(|field| field.number == INITIALIZER) {
        // Only the name: the values are not decoded.
        initializers.extend(fields(field.content)?.iter().filter(|field| field.number == 8).map(|name| name.content));
    }
    let inputs: Vec<(usize, ValueInfo)> = (graph_fields.iter().enumerate())
        .filter(|(_, field)| field.number == INPUT)
        .map(|(index, field)| Ok((index, ValueInfo::decode(field.content).map_err(|error| error.to_string())?)))
        .collect::<Result<_, String>>()?;
    // Files of old versions list initializers among the inputs.
    let inputs: Vec<_> = inputs.into_iter().filter(|(_, info)| !initializers.contains(&info.name.as_bytes())).collect();
    let [(index, input)] = &inputs[..] else {
        return Err(format!("expected exactly one input, found {}", inputs.len()));
    };
    let (added, end) = normalizing(input, normalization)?;

    let kept: Vec<&[u8]> =
        graph_fields.iter().enumerate().filter(|(other, _)| other != index).map(|(_, field)| field.whole).collect();
    let length = added.len() + end.len() + kept.iter().map(|field| field.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(onnx.len() + added.len() + end.len() + 16);
    for field in &model {
        if field.number == GRAPH {
            encode_key(GRAPH, WireType::LengthDelimited, &mut bytes);
            encode_varint(length as u64, &mut bytes);
            bytes.extend_from_slice(&added);
            kept.iter().for_each(|field| bytes.extend_from_slice(field));
            bytes.extend_from_slice(&end);
        } else {
            bytes.extend_from_slice(field.whole);
        }
    }
    Ok(bytes)
}

/// Returns the name of an input without what [`with_pixel_input`] adds.
pub fn original_name(input: &str) -> &str {
    input.strip_suffix(&format!(".{SUFFIX}.pixels")).unwrap_or(input)
}

/// Returns the nodes that normalize the pixels for an input, and the input for the pixels.
fn normalizing(input: &ValueInfo, normalization: &Normalization) -> Result<(Vec<u8>, Vec<u8>), String> {
    let name = &input.name;
    let mut pixels = input.clone();
    let tensor = pixels.kind.as_mut().and_then(|kind| kind.tensor.as_mut());
    let tensor = tensor.ok_or_else(|| format!("input `{name}` is not a tensor"))?;
    if tensor.element != FLOAT {
        return Err(format!("input `{name}` is not f32 (its element type is number {} of ONNX)", tensor.element));
    }
    tensor.element = UINT8;
    let axes = tensor.shape.as_ref().map_or(0, |shape| shape.dims.len());
    pixels.name = format!("{name}.{SUFFIX}.pixels");

    let derived = |what: &str| format!("{name}.{SUFFIX}.{what}");
    // (channels, 1, …): broadcast over the batch and the positions.
    let per_channel: Vec<usize> = std::iter::once(3).chain(vec![1; axes.saturating_sub(2)]).collect();
    let initializer = vec![
        TensorProto::floats(&derived("scale"), &[], &[normalization.scale]),
        TensorProto::floats(&derived("mean"), &per_channel, &normalization.mean),
        TensorProto::floats(&derived("std"), &per_channel, &normalization.std),
    ];
    let [values, scaled, centered] = ["values", "scaled", "centered"].map(derived);
    let mut normalized = NodeProto::new("Div", &[&centered, &derived("std")], name, vec![]);
    // The name of the output, that of the original input, may be the name of a node.
    normalized.name = derived("normalized");
    let node = vec![
        NodeProto::new("Cast", &[&pixels.name], &values, vec![Attribute::int("to", i64::from(FLOAT))]),
        NodeProto::new("Div", &[&values, &derived("scale")], &scaled, vec![]),
        NodeProto::new("Sub", &[&scaled, &derived("mean")], &centered, vec![]),
        normalized,
    ];
    let added = GraphProto { node, initializer, ..GraphProto::default() }.encode_to_vec();
    let end = GraphProto { input: vec![pixels], ..GraphProto::default() }.encode_to_vec();
    Ok((added, end))
}

/// A field of a message.
struct FieldBytes<'a> {
    number: u32,
    /// Key and value.
    whole: &'a [u8],
    /// The value of a length-delimited field; otherwise empty.
    content: &'a [u8],
}

/// Splits a message into its fields.
fn fields(message: &[u8]) -> Result<Vec<FieldBytes<'_>>, String> {
    let invalid = |error: prost::DecodeError| format!("not an ONNX file: {error}");
    let (mut fields, mut rest) = (Vec::new(), message);
    while !rest.is_empty() {
        let whole = rest;
        let (number, wire_type) = decode_key(&mut rest).map_err(invalid)?;
        let mut content: &[u8] = &[];
        if wire_type == WireType::LengthDelimited {
            let length = decode_varint(&mut rest).map_err(invalid)?;
            let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
            let length = length.ok_or("not an ONNX file: a field exceeds its message")?;
            (content, rest) = rest.split_at(length);
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(invalid)?;
        }
        fields.push(FieldBytes { number, whole: &whole[..whole.len() - rest.len()], content });
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::super::proto::ModelProto;
    use super::*;

    const NORMALIZATION: Normalization = Normalization { scale: 255.0, mean: [0.1, 0.2, 0.3], std: [0.4, 0.5, 0.6] };

    fn tiny() -> Vec<u8> {
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/models/tiny.onnx");
        std::fs::read(fixture).unwrap()
    }

    #[test]
    fn everything_but_the_input_is_kept() {
        let original = tiny();
        let unknown = [0xfa, 0x3e, 3, 1, 2, 3]; // field 1007
        let bytes = with_pixel_input(&[&original[..], &unknown].concat(), &NORMALIZATION).unwrap();
        assert!(bytes.ends_with(&unknown));
        let (before, after) = (ModelProto::decode(&original[..]).unwrap(), ModelProto::decode(&bytes[..]).unwrap());
        assert_eq!((before.ir_version, &before.opset_import), (after.ir_version, &after.opset_import));
        let (before, after) = (before.graph.unwrap(), after.graph.unwrap());
        assert_eq!(before.node, after.node[4..]);
        assert_eq!(before.initializer, after.initializer[3..]);
        assert_eq!(before.output, after.output);
        let [input] = &after.input[..] else { panic!("one input") };
        assert_eq!(original_name(&input.name), before.input[0].name);
        let element = |info: &ValueInfo| info.kind.as_ref().unwrap().tensor.as_ref().unwrap().element;
        assert_eq!((element(input), element(&before.input[0])), (UINT8, FLOAT));
        assert_eq!(after.node[3].output, [before.input[0].name.clone()]);
    }

    #[test]
    fn other_files_are_errors() {
        let original = tiny();
        let convert = |bytes: &[u8]| with_pixel_input(bytes, &NORMALIZATION).unwrap_err();
        assert!(convert(b"").contains("not an ONNX file"));
        assert!(convert(b"not a model").contains("not an ONNX file"));
        assert!(convert(&original[..original.len() / 2]).contains("not an ONNX file"));
        let pixels = with_pixel_input(&original, &NORMALIZATION).unwrap();
        assert!(convert(&pixels).contains("is not f32"));
        let mut model = ModelProto::decode(&original[..]).unwrap();
        let graph = model.graph.as_mut().unwrap();
        let mut other = graph.input[0].clone();
        other.name.push('2');
        graph.input.push(other);
        assert!(convert(&model.encode_to_vec()).contains("expected exactly one input, found 2"));
    }
}
