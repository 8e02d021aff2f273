"""Quantizes a network for OpenVINO with NNCF, on evenly spaced items of the clips, decoded and transformed as in features.py.

`quantize.py --method cnn|cnn3d|effnet|clip --manifest M --model FILE.onnx --items N --out FILE.xml`
"""
import argparse
import csv
import pathlib

import nncf
import openvino

import features
import media


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", choices=media.NETWORKS, required=True)
    parser.add_argument("--manifest", type=pathlib.Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--items", type=int, required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.manifest, newline="") as file:
        paths = [str(arguments.manifest.parent / clip["path"]) for clip in csv.DictReader(file)]
    each = max(1, arguments.items // len(paths))
    arguments.frames, arguments.windows, arguments.torchvision = each, each, False
    features.initialize_worker(arguments)
    items = [item[None] for path in paths for item in features.prepare(path)][: arguments.items]
    # The presets that NNCF documents: "mixed" ranges are asymmetric for activations that are not rectified; attention and LayerNorm
    # need the scheme for transformers.
    transformer = nncf.ModelType.TRANSFORMER if arguments.method in ("cnn", "clip") else None
    model = openvino.Core().read_model(arguments.model)
    dataset = nncf.Dataset(items)
    quantized = nncf.quantize(
        model, dataset, subset_size=len(items), preset=nncf.QuantizationPreset.MIXED, model_type=transformer, fast_bias_correction=True
    )
    openvino.save_model(quantized, arguments.out)


if __name__ == "__main__":
    main()
