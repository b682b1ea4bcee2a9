"""One thread per test process: small tensors gain nothing from more, and bits stay the same."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
