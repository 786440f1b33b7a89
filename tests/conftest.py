"""Settings for all tests. Fixtures live beside the tests that use them."""

import os

import hypothesis

# One core per process, subprocesses included, read when torch is first imported. The test processes share the cores
# already; more threads than cores wait for each other, and tiny networks then take 20 times as long. Tests about
# threads set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every run, and no time limit per example: shared machines stall.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")
