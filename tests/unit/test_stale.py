"""Unfinished uploads: only what is a copy of the source's object, of this run's keys and old in all its parts goes."""

from __future__ import annotations

import hashlib

import pytest

from replicator.bulk.stale import abort_stale
from replicator.errors import AccessDenied, Transient
from replicator.model import Listed, MiB
from replicator.store import Write
from tests.fakes.memory import Bucket, MemoryStore, Upload

NOW = 1_000_000.0
BEFORE = NOW - 7 * 86400
OLD, RECENT = BEFORE - 1, BEFORE + 1
PART = 5 * MiB
PARTS = [bytes([n]) * PART for n in (1, 2)] + [b"end"]


class Place(MemoryStore):
    """A target with one or several unfinished uploads, that knows when their parts were stored."""

    def __init__(self):
        super().__init__(Bucket(now=NOW))
        self.times = {}

    def begin(self, name, key="k", *, initiated=OLD, parts=(1, 2), times=None, datas=PARTS):
        upload = Upload(key, Write(), initiated=initiated)
        for number in parts:
            upload.parts[number] = datas[number - 1]
            upload.etags[number] = hashlib.md5(datas[number - 1]).hexdigest()
        self.bucket.uploads[name] = upload
        self.times[name] = times or {}
        return self

    async def list_parts(self, key, upload):
        found = await super().list_parts(key, upload)
        times = self.times[upload]
        return {n: Listed(*part[:3], times.get(n, OLD), part.storage_class) for n, part in found.items()}

    @property
    def left(self):
        return sorted(self.bucket.uploads)


def origin(*keys):
    store = MemoryStore(Bucket(now=OLD))
    for key in keys:
        store.bucket.write(key, b"".join(PARTS), part_size=PART)
    return store


async def abort(source, place, *, includes=lambda key: True, dry_run=False):
    stale = await abort_stale(source, place, before=BEFORE, includes=includes, dry_run=dry_run)
    return [upload.id for upload in stale.aborted], stale.left


@pytest.mark.parametrize(
    ("upload", "aborted", "perhaps"),
    {
        "a part of a copy": ({}, True, False),
        "its last part only": ({"parts": [3]}, True, False),
        "all its parts": ({"parts": [1, 2, 3]}, True, False),
        "begun not long ago": ({"initiated": RECENT}, False, False),
        "begun at that very moment": ({"initiated": BEFORE}, False, False),
        "begun who knows when": ({"initiated": float("inf")}, False, False),
        "with a recent part": ({"times": {2: RECENT}}, False, False),
        "with a part of that very moment": ({"times": {1: BEFORE}}, False, False),
        "without parts, so of anybody": ({"parts": []}, False, True),
        "with parts of other sizes": ({"datas": [b"x" * (PART + 1), *PARTS[1:]]}, False, True),
        "with other bytes": ({"datas": [PARTS[0], b"x" * PART]}, False, True),
        "with more parts than there are": ({"parts": [1, 4], "datas": [*PARTS, b"end"]}, False, True),
    }.values(),
)
async def test_an_upload_is_aborted_only_if_it_is_an_old_copy(upload, aborted, perhaps):
    place = Place().begin("u", **upload)
    assert await abort(origin("k"), place) == (["u"] if aborted else [], int(perhaps))
    assert place.left == ([] if aborted else ["u"])


async def test_an_upload_of_an_object_that_the_source_does_not_have_is_left_alone():
    place = Place().begin("u")
    assert await abort(origin("other"), place) == ([], 1)
    assert place.left == ["u"]


async def test_an_upload_of_a_version_that_the_source_no_longer_has_is_left_alone():
    source, place = origin("k"), Place().begin("u")
    source.bucket.write("k", b"".join([PARTS[1], PARTS[0], PARTS[2]]), part_size=PART)
    assert await abort(source, place) == ([], 1)
    assert place.left == ["u"]


async def test_uploads_of_keys_that_the_run_is_not_about_are_left_alone():
    place = Place().begin("a", "in/1").begin("b", "out/1")
    assert await abort(origin("in/1", "out/1"), place, includes=lambda key: key.startswith("in/")) == (["a"], 0)
    assert place.left == ["b"]


async def test_several_uploads_of_one_key_are_told_apart():
    place = Place().begin("a").begin("b", times={1: RECENT}).begin("c", datas=[b"1", b"2"])
    assert await abort(origin("k"), place) == (["a"], 1)
    assert place.left == ["b", "c"]


async def test_a_dry_run_names_them_and_aborts_none():
    place = Place().begin("a").begin("b", initiated=RECENT)
    assert await abort(origin("k"), place, dry_run=True) == (["a"], 0)
    assert place.left == ["a", "b"]
    assert set(place.calls) == {"ListMultipartUploads", "ListParts"}


@pytest.mark.parametrize("operation", ["ListParts", "HeadObject"])
async def test_an_upload_that_may_not_be_looked_at_is_left_alone_and_others_are_not(operation):
    async def step(happening, key):
        if (happening, key) == (operation, "k"):
            raise AccessDenied(happening, key, "no")

    source, place = origin("k", "l"), Place().begin("a").begin("b", "l")
    (place if operation == "ListParts" else source)._step = step
    assert (await abort(source, place))[0] == ["b"]
    assert place.left == ["a"]


async def test_an_upload_that_is_completed_meanwhile_is_left_out():
    place = Place().begin("a").begin("b", "l")

    async def step(operation, key):
        if (operation, key) == ("ListParts", "k"):
            place.bucket.uploads.pop("a", None)

    place._step = step
    assert await abort(origin("k", "l"), place) == (["b"], 0)


@pytest.mark.parametrize("operation", ["ListMultipartUploads", "ListParts", "AbortMultipartUpload"])
async def test_errors_of_the_target_are_raised_and_nothing_is_aborted(operation):
    async def step(happening, key):
        if happening == operation:
            raise Transient(happening, key, "no")

    place = Place().begin("a")
    place._step = step
    with pytest.raises(Transient):
        await abort(origin("k"), place)
    assert place.left == ["a"]


async def test_a_source_that_does_not_answer_has_nothing_aborted():
    async def step(happening, key):
        raise Transient(happening, key, "no")

    source, place = origin("k"), Place().begin("a")
    source._step = step
    with pytest.raises(Transient):
        await abort(source, place)
    assert place.left == ["a"]
