"""How fast recordings are sampled, and how fast their features are."""

#: Samples per second of what is decoded, as in Da-TACOS.
SAMPLE_RATE = 44100

#: Samples between two frames.
HOP = 4096

#: Frames per second.
FRAME_RATE = SAMPLE_RATE / HOP
