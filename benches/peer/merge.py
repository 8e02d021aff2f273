"""Concatenates the datasets of HDF5 stores with h5py, block by block, without the checks of kinoprobe-merge."""
import argparse

import h5py
import numpy as np

BLOCK_ROWS = 16384


def append(target, source, name, shift):
    rows = source[name]
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start:start + BLOCK_ROWS]
        target.resize(len(target) + len(block), axis=0)
        target[len(target) - len(block):] = block + np.asarray(shift, block.dtype) if shift else block


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with h5py.File(arguments.out, "w") as target:
        for path in arguments.sources:
            with h5py.File(path) as source:
                names = []
                source.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
                shifts = {"clips/offset": len(target["rows/clip"]), "rows/clip": len(target["clips/id"])} if len(target) else {}
                for name in names:
                    like = source[name]
                    if name not in target:
                        target.create_dataset(name, (0, *like.shape[1:]), like.dtype, maxshape=(None, *like.shape[1:]), chunks=like.chunks,
                            compression=like.compression, compression_opts=like.compression_opts, shuffle=like.shuffle)
                    append(target[name], source, name, shifts.get(name, 0))
                target.attrs.update(source.attrs)


if __name__ == "__main__":
    main()
