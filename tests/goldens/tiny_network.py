"""Writes fixtures/models/tiny.onnx: a network without a built-in definition, described by its card only.

Needs onnx and numpy. One strided convolution, ReLU, global average: (batch, 3, 64, 64) -> (batch, 8).
"""
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(0)
weight = (random.standard_normal((8, 3, 7, 7)) * 0.15).astype(np.float32)
bias = (random.standard_normal(8) * 0.1).astype(np.float32)
graph = helper.make_graph(
    [
        helper.make_node("Conv", ["picture", "weight", "bias"], ["features"], strides=[4, 4]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["code"], axis=1),
    ],
    "tiny",
    [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["batch", 3, 64, 64])],
    [helper.make_tensor_value_info("code", TensorProto.FLOAT, ["batch", 8])],
    [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
path = pathlib.Path(__file__).parents[2] / "fixtures" / "models" / "tiny.onnx"
onnx.save(model, path)
print(path)
