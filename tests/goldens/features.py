#!/usr/bin/env python3
"""Writes small files of features with scipy and torch for kinoprobe-import: fixtures/features/.

    python tests/goldens/features.py

Needs numpy, scipy and torch. Six clips, "a" to "f"; feature j of clip i is i + j / 8. The content is deterministic; the bytes may differ
between versions.
"""
import pathlib

import numpy as np
import scipy.io
import scipy.sparse
import torch

DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "features"


def main():
    DIRECTORY.mkdir(exist_ok=True)
    ids = list("abcdef")
    features = np.arange(6)[:, None] + np.arange(4)[None] / 8
    cells = np.array(ids, dtype=object)

    def matlab(name, compressed, **variables):
        scipy.io.savemat(DIRECTORY / name, variables, do_compression=compressed)

    # One clip per column, as MATLAB users store them, and a cell array of names.
    matlab("columns.mat", True, X=features.T.astype("f4"), names=cells, labels=np.arange(6))
    # Doubles, a character matrix, and variables that are no features.
    matlab("rows.mat", False, features=features, ids=np.array([id.ljust(3) for id in ids]), rate=25.0,
           options={"layer": "pool"}, mask=scipy.sparse.eye(3), phase=np.array([[1 + 2j]]))
    # MATLAB stores doubles with small integer values as integers; scipy stores the type of the array.
    matlab("integers.mat", True, features=np.arange(24, dtype="i2").reshape(6, 4), ids=cells)
    matlab("sequences.mat", True, features=features.reshape(2, 3, 4), ids=np.array(["α", "long name"], dtype=object))

    tensor = torch.tensor(features, dtype=torch.float32)
    torch.save(tensor, DIRECTORY / "tensor.pt")
    torch.save(tensor.half(), DIRECTORY / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"features": tensor.double(), "ids": ids, "epoch": 3}, DIRECTORY / "named.pt")
    # A clip is a view of all features, with one row or several.
    torch.save({id: tensor[i] for i, id in enumerate(ids)}, DIRECTORY / "clips.pt")
    torch.save({f"{id}/rows": tensor[i : i + 2].t().contiguous().t() for i, id in enumerate(ids[:5])}, DIRECTORY / "rows.pt")
    torch.save({"ids": ids, "features": features}, DIRECTORY / "numpy.pt")
    # A rejected file: no code in it may be executed.
    torch.save({"features": tensor, "path": pathlib.PurePosixPath("x")}, DIRECTORY / "code.pt")


if __name__ == "__main__":
    main()
