"""--include and --exclude mean what they mean for `aws s3`."""

from __future__ import annotations

import click
import pytest

from replicator.cli.options import FilteringCommand, key_filter
from replicator.filters import KeyFilter, Rule


def include(pattern):
    return Rule(True, pattern)


def exclude(pattern):
    return Rule(False, pattern)


def kept(rules, keys):
    keys_filter = KeyFilter(rules)
    return [key for key in keys if keys_filter.includes(key)]


def parse(arguments):
    """What a command with these options makes of a command line."""
    seen = []

    @click.command(cls=FilteringCommand)
    @click.argument("places", nargs=-1)
    @click.option("--include", multiple=True)
    @click.option("--exclude", multiple=True)
    @click.option("--report")
    def command(places, include, exclude, report):
        seen.append((key_filter(), places, include, exclude))

    command.main(arguments, standalone_mode=False)
    return seen[0]


def test_without_rules_everything_is_included():
    assert kept([], ["a", "", "/", "\n", "é"]) == ["a", "", "/", "\n", "é"]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([exclude("*")], []),
        ([exclude("*.tmp")], ["a.txt", "d/b.txt"]),
        ([include("*.txt")], ["a.txt", "b.tmp", "d/b.txt", "d/c.tmp"]),
        ([exclude("*"), include("*.txt")], ["a.txt", "d/b.txt"]),
        ([include("*.txt"), exclude("*")], []),
        ([exclude("*"), include("*.txt"), exclude("d/*")], ["a.txt"]),
        ([exclude("d/*"), include("d/b.txt")], ["a.txt", "b.tmp", "d/b.txt"]),
        ([include("d/b.txt"), exclude("d/*")], ["a.txt", "b.tmp"]),
    ],
)
def test_the_last_rule_that_matches_decides(rules, expected):
    assert kept(rules, ["a.txt", "b.tmp", "d/b.txt", "d/c.tmp"]) == expected


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("*", "a/b/c", True),
        ("a*c", "a/b/c", True),
        ("*.log", "deep/er/x.log", True),
        ("a/*", "a/b/c", True),
        ("a/*", "b/a/c", False),
        ("a", "a/b", False),
        ("b", "a/b", False),
        ("a/", "a/b", False),
        ("?", "/", True),
        ("a?c", "a/c", True),
        ("?", "ab", False),
        ("[ab]x", "bx", True),
        ("[!ab]x", "cx", True),
        ("[!ab]x", "ax", False),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("a.c", "abc", False),
        ("(a|b)", "a", False),
        ("A*", "abc", False),
        ("*", "line\nbreak", True),
        ("*k", "line\nbreak", True),
        ("a", "a\n", False),
        ("é", "é", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_a_pattern_is_of_the_shell_but_knows_no_directories(pattern, key, matches):
    assert (kept([exclude(pattern)], [key]) == []) is matches


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["a.txt", "b.tmp"]),
        (["--exclude", "*", "--include", "*.txt"], ["a.txt"]),
        (["--include", "*.txt", "--exclude", "*"], []),
        (["--exclude=*", "--include=*.txt"], ["a.txt"]),
        (["--include=*.txt", "--exclude", "*"], []),
        (["--exclude", "*", "from", "--include", "b*", "to"], ["b.tmp"]),
        (["--exclude=a=b", "--exclude", "*.tmp"], ["a.txt"]),
        (["--exclude", "*", "--include", "a*", "--exclude", "*.txt"], []),
    ],
)
def test_the_order_on_the_command_line_counts(arguments, expected):
    keys = parse(arguments)[0]
    assert [key for key in ("a.txt", "b.tmp") if keys.includes(key)] == expected


def test_what_follows_two_dashes_is_no_option():
    keys, places, includes, excludes = parse(["--exclude", "*.tmp", "--", "--exclude", "--include=x"])
    assert (places, includes, excludes) == (("--exclude", "--include=x"), (), ("*.tmp",))
    assert keys.includes("a.txt")
    assert not keys.includes("b.tmp")


def test_one_command_does_not_inherit_the_rules_of_another():
    assert not parse(["--exclude", "*"])[0].includes("a")
    assert parse([])[0].includes("a")


def test_a_filter_without_a_key_leaves_out_that_one_and_what_the_patterns_add_to_it():
    chosen = KeyFilter([Rule(False, "*"), Rule(True, "a*")]).without("a[b]", "-*", "/*")
    assert not any(chosen.includes(key) for key in ("a[b]", "a[b]-wal", "a[b]/c/d", "z"))
    assert all(chosen.includes(key) for key in ("a[b]c", "ab", "ab-wal", "a"))
