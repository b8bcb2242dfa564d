"""Convert the weights of the chord model in PyPI's `crema` 0.2.0, once.

pip download --no-deps crema==0.2.0 && unzip crema-0.2.0-*.whl
python docs/crema_weights.py crema/models/chord/model.h5 embedding/audio/crema.safetensors
"""

import sys

import h5py
import numpy as np
from safetensors.numpy import save_file

#: The layers that lead to the pitch classes; the others name chords.
LAYERS = (
    "batch_normalization_1",
    "conv2d_1",
    "batch_normalization_2",
    "conv2d_2",
    "batch_normalization_3",
    "bidirectional_1",
    "batch_normalization_4",
    "bidirectional_2",
    "chord_pitch",
)

if __name__ == "__main__":
    source, target = sys.argv[1:]
    weights = {}

    def collect(name: str, member: object) -> None:
        """Keep an array of a layer, which has the name layer/…/layer/array:0."""
        if isinstance(member, h5py.Dataset) and name.split("/")[0] in LAYERS:
            *_, layer, array = name.split("/")
            values = np.asarray(member[()], np.float32)
            if layer == "conv2d_2":  # all 216 bins at once, which is a product
                values = values.reshape(-1, 72)[-216:] if values.ndim > 1 else values
            weights[f"{layer}.{array.removesuffix(':0')}"] = values

    with h5py.File(source) as file:
        file["model_weights"].visititems(collect)
    save_file(weights, target)
