"""The order of --include and --exclude is the one that click has."""

import pytest

from tests.unit.test_filters import parse


@pytest.mark.parametrize(
    "arguments",
    [
        ["--report", "--exclude", "x"],  # a value that looks like an option: click takes it as the report's
        ["--exclude", "--include", "x"],
    ],
)
def test_the_filter_has_the_patterns_that_click_has(arguments):
    keys, _, include, exclude = parse(arguments)
    rules = [(include, match.__self__.pattern) for include, match in keys._rules]
    assert len(rules) == len(include) + len(exclude), (rules, include, exclude)
