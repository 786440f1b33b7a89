"""Cases that the quick tests leave out: they sample a sweep, its boundaries first."""

import functools

import pytest

exhaustive = functools.partial(pytest.param, marks=pytest.mark.exhaustive)
