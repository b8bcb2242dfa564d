"""Keep what is loaded out of the garbage collections of forked processes."""

import gc

gc.freeze()
