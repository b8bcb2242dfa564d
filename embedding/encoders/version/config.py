"""The configuration of the version encoder."""

import math
from dataclasses import dataclass

from embedding.encoders.encoder import check_numbers, check_tempos


@dataclass(frozen=True)
class VersionConfig:
    """What a version encoder consists of, and how it is trained.

    The defaults were chosen on works that share no tune with the sample.
    """

    #: Works that `embedding.composing` makes up for the encoder to learn from, beside the data.
    composed_works: int = 0
    #: Components of the two halves; the first has at most one for each training performance.
    projection_dimension: int = 208
    network_dimension: int = 48
    network_weight: float = 0.5  # length of the network's half; the projection's half has length 1
    shrinkage: float = 0.1  # as in `projection.fit_discriminant`
    tempos: tuple[float, ...] = (0.82, 1.22)  # of altered copies to fit the projection to
    #: Widths of the network, from its input to its output.
    channels: int = 32
    wide_channels: int = 64
    hidden: int = 256
    dropout: float = 0.1  # share of the channels that are left out in training
    crop: int = 224  # frames of a performance that are used at a time in training
    works: int = 32  # in a batch
    views: int = 2  # performances of each work in a batch
    #: Batches per epoch, at least; there are more if it takes more to see about every performance.
    min_steps: int = 30
    epochs: int = 10  # all are run, as the learning rate follows one cycle over all of them
    learning_rate: float = 3e-3  # of AdamW, at the top of the cycle
    weight_decay: float = 0.02
    temperature: float = 0.1  # of the supervised contrastive loss
    ema_decay: float = 0.99  # weight of the past in the moving average of the weights
    augmentation: float = 0.4  # as `strength` in `augmentation.augment`

    def __post_init__(self) -> None:
        object.__setattr__(self, "tempos", check_tempos(self.tempos))
        check_numbers(
            self,
            composed_works=(0, math.inf),
            network_weight=(0, math.inf),
            shrinkage=(1e-9, 1),
            dropout=(0, 0.9),
            crop=(16, math.inf),
            works=(2, math.inf),
            views=(2, math.inf),
            weight_decay=(0, math.inf),
            ema_decay=(0, 1 - 1e-9),
            augmentation=(0, 1),
        )
