"""Examples in docstrings do what they say."""

import doctest
import importlib
import pkgutil

import pytest

import robust_flatness

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(robust_flatness.__path__, "robust_flatness.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
