"""Work items travel unharmed, whatever their keys are made of, and what cannot be read is said to be poison."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.errors import PoisonMessage
from replicator.items import (
    KIND,
    MOST_KEYS,
    KeysItem,
    PartsItem,
    RangeItem,
    decode,
    encode,
    is_item,
    keys_items,
)
from replicator.live.piece import MOST_PARTS
from replicator.model import LONGEST_KEY
from replicator.multipart import MAX_PART, MAX_PARTS, Part

LARGEST_MESSAGE = 256 * 1024
"""Bytes of a message of SQS: every queue takes so many."""

OF_STORES = st.text()
OF_DIRECTORIES = st.binary().map(lambda name: name.decode("utf-8", "surrogateescape"))
"""Names of files may be in no Unicode: Python has lone surrogates for such bytes."""

KEYS = OF_STORES | OF_DIRECTORIES
PARTS = st.builds(Part, st.integers(1, MAX_PARTS), st.integers(0, 2**45), st.integers(1, MAX_PART))
ITEMS = (
    st.builds(KeysItem, KEYS, st.lists(KEYS, min_size=1).map(tuple), st.booleans(), KEYS)
    | st.builds(RangeItem, KEYS, KEYS, st.none() | KEYS, st.booleans(), KEYS)
    | st.builds(
        PartsItem,
        KEYS,
        KEYS,
        KEYS,
        st.lists(st.tuples(KEYS, KEYS), min_size=1).map(tuple),
        st.lists(PARTS).map(tuple),
        st.integers(1, MAX_PARTS),
        st.lists(KEYS).map(tuple),
        st.booleans(),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
FIELDS = (
    "route",
    "keys",
    "released",
    "after",
    "upto",
    "deep",
    "key",
    "etag",
    "uploads",
    "parts",
    "count",
    "stamped",
    "exact",
    "source",
)
LONGEST_KEYS = [
    "\x01" * LONGEST_KEY,
    "é" * (LONGEST_KEY // 2),
    "\U0001f5ff" * (LONGEST_KEY // 4),
    "\\" * LONGEST_KEY,
]
"""Keys of as many bytes as a store takes, of which JSON makes several times as many."""


def size_of(item):
    return len(encode(item).encode())


@given(ITEMS)
def test_an_item_comes_out_as_it_went_in(item):
    body = encode(item)
    assert is_item(body)
    assert decode(body) == item


@given(ITEMS)
def test_a_message_has_nothing_that_sqs_does_not_take(item):
    assert all(" " <= character <= "\x7f" for character in encode(item))


@given(
    st.sampled_from(["keys", "range", "parts"]) | JSON,
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(st.lists(st.integers(-1, 5) | st.text(max_size=2)))),
)
def test_whatever_begins_as_an_item_is_one_or_poison(kind, fields):
    body = json.dumps({KIND: kind, **fields})
    assert is_item(body)
    try:
        item = decode(body)
    except PoisonMessage as error:
        reason = error.reason
    else:
        assert decode(encode(item)) == item
        return
    assert "\n" not in reason
    assert len(reason) < 200


@given(st.text())
def test_what_only_begins_as_an_item_is_poison(rest):
    body = f'{{"{KIND}":{rest}'
    assert is_item(body)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        with pytest.raises(PoisonMessage, match="not JSON"):
            decode(body)
    else:
        assert KIND in document


@pytest.mark.parametrize("depth", [10, 100_000])
def test_what_is_nested_too_deep_is_poison(depth):
    with pytest.raises(PoisonMessage):
        decode(f'{{"{KIND}": "keys", "keys": {"[" * depth}{"]" * depth}}}')


def test_a_number_of_many_digits_is_poison():
    with pytest.raises(PoisonMessage):
        decode(f'{{"{KIND}": "parts", "count": {"9" * 10_000}}}')


@pytest.mark.parametrize(
    "parts", [None, [[1, 0]], [[0, 0, 5]], [[1, -1, 5]], [[1, 0, 0]], [["1", 0, 5]], [[1, 0, 5.0]], ["abc"], 7]
)
def test_parts_that_are_none_are_poison(parts):
    body = {KIND: "parts", "route": "r", "key": "k", "etag": "e", "uploads": [["t", "u"]], "parts": parts, "count": 1}
    with pytest.raises(PoisonMessage, match="parts"):
        decode(json.dumps(body))


def test_an_item_of_a_later_version_is_poison_and_named():
    with pytest.raises(PoisonMessage, match="'future', which this version does not know"):
        decode(json.dumps({KIND: "future"}))


@pytest.mark.parametrize(
    "body", ["", "{}", '{"Records": []}', '{"replicators": 1}', ' {"replicator": "keys"}', '["replicator"]']
)
def test_what_others_send_is_no_item(body):
    assert not is_item(body)


@pytest.mark.parametrize("key", LONGEST_KEYS)
def test_an_item_of_the_most_and_largest_parts_of_the_longest_key_fits_into_a_message(key):
    parts = tuple(Part(MAX_PARTS - n, 10_000 * MAX_PART - n, MAX_PART) for n in range(MOST_PARTS))
    uploads = tuple((f"s3://{'b' * 63}/{'ü' * 512}", "i" * 1024) for _ in range(8))
    item = PartsItem("r" * 100, key, f"{'0' * 32}-{MAX_PARTS}", uploads, parts, MAX_PARTS, tuple(n for n, _ in uploads))
    assert size_of(item) < LARGEST_MESSAGE


@pytest.mark.parametrize("key", LONGEST_KEYS)
def test_items_of_the_longest_keys_fit_into_messages(key):
    items = list(keys_items("r" * 100, [key] * 1000))
    assert max(map(size_of, items)) < LARGEST_MESSAGE
    assert [key for item in items for key in item.keys] == [key] * 1000


@given(st.lists(KEYS, max_size=300))
def test_keys_are_cut_into_items_in_order_and_none_is_lost(keys):
    items = list(keys_items("r", keys))
    assert [key for item in items for key in item.keys] == keys
    assert all(0 < len(item.keys) <= MOST_KEYS for item in items)
    assert len(items) <= len(keys) // MOST_KEYS + 1


@pytest.mark.parametrize("key", LONGEST_KEYS)
def test_a_range_between_the_longest_keys_fits_into_a_message(key):
    assert size_of(RangeItem("r" * 100, key, key, deep=True)) < LARGEST_MESSAGE
