"""What a process frees stays with it, so that it takes no page faults again."""

import subprocess
import sys

import pytest

COUNT = """
import resource
from t2l.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    before = faults()
    for _ in range(10):
        bytearray(16 << 20)[:] = b"x" * (16 << 20)
    return faults() - before

freed = use()
print(keep_freed_memory("cpu"))
use()
print(use() < freed / 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again() -> None:
    output = subprocess.run([sys.executable, "-c", COUNT], check=True, capture_output=True, text=True).stdout
    if output.startswith("False"):
        pytest.skip("this C library has no mallopt")
    assert output.split() == ["True", "True"]
