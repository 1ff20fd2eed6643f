import pytest
import torch

from tests.building import why_not
from tests.cuda.modules import emulated


@pytest.fixture
def emulation():
    if why_not() is not None:
        pytest.skip(f"the CUDA sources cannot be emulated: {why_not()}")
    with emulated():
        yield


@pytest.fixture
def tf32():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = before
