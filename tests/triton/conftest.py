"""One process cannot both interpret and compile Triton kernels: what needs the interpreter is a run of its own,
``TRITON_INTERPRET=1 pytest tests/triton/interpreted``."""

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted/*"]
