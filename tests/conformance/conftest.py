"""Adds the summary line of the conformance cases to any session that collects them.

Under pytest-xdist the controlling process collects nothing and never sees this file; tests/conftest.py names
the same plugin for that. A plugin is only ever added once.
"""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.import_plugin("conformance.summary")
