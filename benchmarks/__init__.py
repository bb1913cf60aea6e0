"""Races between this library and hand-written references, on one thread unless a row says so."""

import os

# numpy's BLAS reads it once, when it is loaded; torch is told in __main__.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
