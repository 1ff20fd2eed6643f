import pytest

from tests.building import why_not
from tests.cuda.modules import emulated


@pytest.fixture
def emulation():
    if why_not() is not None:
        pytest.skip(f"the CUDA sources cannot be emulated: {why_not()}")
    with emulated():
        yield
