"""The weights of a network as named arrays, and back."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Net = TypeVar("Net", bound="nn.Module")

#: Batch normalisation counts batches while it trains; the count has no effect afterwards.
COUNTER_NAME = "num_batches_tracked"


def arrays_of(network: "nn.Module", prefix: str = "") -> dict[str, np.ndarray]:
    """Return every weight as an array, named `prefix` and its name in the network."""
    return {
        f"{prefix}{name}": weight.numpy(force=True)
        for name, weight in network.state_dict().items()
        if not name.endswith(COUNTER_NAME)
    }


def rebuild(make: Callable[[], Net], arrays: dict[str, np.ndarray], prefix: str = "") -> Net:
    """Make a network, in evaluation mode, with the weights that `arrays_of` returned."""
    import torch

    with torch.device("meta"):  # no random weights, as they are replaced
        network = make()
    weights = {}
    for name in network.state_dict():
        counts = name.endswith(COUNTER_NAME)
        weights[name] = torch.tensor(0) if counts else torch.from_numpy(arrays[f"{prefix}{name}"])
    network.load_state_dict(weights, assign=True)
    return network.eval()
