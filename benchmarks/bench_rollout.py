"""`pytest --benchmark`: the default rows in pytest-benchmark's form, for the peers that run in this process.

pytest-benchmark times one peer after the other; figures to quote come from `python -m benchmarks.compare`, which takes
them in turns.
"""

import pytest
import torch

from benchmarks.cases import DEFAULT, HEAT
from benchmarks.peers import PEERS, peers_of
from benchmarks.runners import RefusalError, start
from benchmarks.verify import check

PAIRS = [(case, name) for case in DEFAULT + HEAT for name in peers_of(case) if not PEERS[name].own_process]


@pytest.mark.parametrize(("case", "name"), PAIRS, ids=lambda value: str(value))
def bench_rollout(benchmark, case, name):
    benchmark.group = f"{case}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    try:
        runner = start(name, case)
    except RefusalError as refusal:
        pytest.skip(str(refusal))
    check(case, name, runner.results)
    benchmark.pedantic(runner.seconds, args=(1,), rounds=5, warmup_rounds=1)
    runner.close()
