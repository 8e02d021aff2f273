#!/usr/bin/env python3
"""Writes small checkpoints with torch for the readers in src/models/checkpoint: fixtures/checkpoints/.

    python tests/goldens/checkpoints.py

Needs torch, numpy and safetensors. The content is deterministic; the bytes of the archives may differ between versions of torch.
"""
import argparse
import collections
import json
import pathlib

import torch
from safetensors.torch import save_file

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "checkpoints"


def tensors():
    """One tensor per element type and memory layout."""
    ramp = torch.arange(24, dtype=torch.float32) / 8 - 1
    base = torch.arange(12, dtype=torch.float32)
    return collections.OrderedDict(
        [
            ("f32", ramp.reshape(2, 3, 4).clone()),
            ("f64", ramp.double()[:6].clone()),
            ("f16", torch.tensor([0.5, -65504.0, 6e-8, float("inf"), 1 / 3, -0.0]).half()),
            ("bf16", torch.tensor([0.5, -3e38, 1e-40, 1 / 3]).bfloat16()),
            ("i64", torch.tensor(7)),
            ("i32", torch.tensor([-5, 6], dtype=torch.int32)),
            ("i16", torch.tensor([-300, 300], dtype=torch.int16)),
            ("i8", torch.tensor([-128, 127], dtype=torch.int8)),
            ("u8", torch.tensor([0, 255], dtype=torch.uint8)),
            ("bool", torch.tensor([True, False])),
            ("empty", torch.zeros(0, 3)),
            ("whole", base),  # the next three share its storage
            ("offset", base[4:8]),
            ("transposed", base.reshape(3, 4).t()),
            ("strided", base[1::3]),
            ("parameter", torch.nn.Parameter(torch.tensor([1.0, 2.0]))),
        ]
    )


class Malicious:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        import os

        return os.system, ("echo never",)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    state = tensors()
    for suffix, zipped in [("zip", True), ("legacy", False)]:
        save = lambda value, name: torch.save(value, DIRECTORY / f"{name}-{suffix}.pth", _use_new_zipfile_serialization=zipped)
        save(state, "plain")
        wrapped = collections.OrderedDict((f"module.{name}", value) for name, value in state.items())
        optimizer = {"state": {0: {"momentum": torch.ones(5, dtype=torch.float64)}}, "lr": 0.1, "betas": (0.9, 0.999)}
        save({"epoch": 3, "optimizer": optimizer, "state_dict": wrapped}, "wrapped")
        save({"weight": torch.ones(2), "bomb": Malicious()}, "hostile")
        # nn.Module.state_dict() returns a dict with the attribute _metadata.
        torch.manual_seed(0)
        save(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3)).state_dict(), "module")
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, DIRECTORY / "plain.safetensors")
    expected = {
        name: {"shape": list(value.shape), "values": [repr(v) for v in value.detach().float().flatten().tolist()]}
        for name, value in state.items()
    }
    (DIRECTORY / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
