"""One rollout on the CPU: ours against eager PyTorch, forward and with gradients (`pytest --benchmark`).

pytest-benchmark times one peer after the other; for figures to quote use `python -m benchmarks.compare`, which
takes them in turns.
"""

import pytest
import torch

from benchmarks.cases import CASES, DIRECTIONS, PEERS, workload


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("case", CASES)
def bench_rollout(benchmark, case, direction, peer):
    benchmark.group = f"{case}, {direction}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    benchmark.pedantic(workload(case, direction, peer), rounds=9, warmup_rounds=2)
