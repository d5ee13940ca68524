"""Which storage class an object gets at a target: what the map says, and that every way of writing goes by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from replicator.converge import Converger
from replicator.copying import SMALL
from replicator.errors import ConfigurationError
from replicator.model import Attributes, Deletes, Did, MiB
from replicator.multipart import Part
from replicator.storage_classes import StorageClasses, parse_storage_classes, storage_classes_from
from replicator.store import Write
from tests.fakes.memory import MemoryStore, Quirks

TO_IA = StorageClasses((("GLACIER", "STANDARD_IA"), ("*", "STANDARD")))
PART = 5 * MiB
DATA = bytes(PART) + b"the rest"
OLD, NEW = Attributes(content_type="text/plain"), Attributes(content_type="text/html")


def wanted(text, storage_class):
    return parse_storage_classes(text, "MAP").wanted(storage_class)


def refusal(read, *arguments):
    with pytest.raises(ConfigurationError) as caught:
        read(*arguments, "MAP")
    (line,) = str(caught.value).splitlines()
    return line


# What a map says


@pytest.mark.parametrize(
    ("text", "storage_class", "expected"),
    [
        ("GLACIER=STANDARD_IA", "GLACIER", "STANDARD_IA"),
        ("GLACIER=STANDARD_IA", "DEEP_ARCHIVE", None),
        ("GLACIER=STANDARD_IA", "", None),
        ("GLACIER=STANDARD_IA,*=STANDARD", "DEEP_ARCHIVE", ""),
        ("*=STANDARD,GLACIER=STANDARD_IA", "GLACIER", "STANDARD_IA"),
        ("*=STANDARD_IA", "", "STANDARD_IA"),
        ("*=STANDARD_IA", "STANDARD", "STANDARD_IA"),
        ("STANDARD=COLD", "", "COLD"),
        ("GLACIER=", "GLACIER", ""),
        (" GLACIER = STANDARD_IA , ", "GLACIER", "STANDARD_IA"),
        ("", "GLACIER", None),
    ],
)
def test_a_class_is_mapped_by_its_name_else_by_the_star_else_not_at_all(text, storage_class, expected):
    assert wanted(text, storage_class) == expected


def test_a_table_says_the_same_as_the_text():
    table = {"GLACIER": "STANDARD_IA", "*": "STANDARD"}
    assert storage_classes_from(table, "MAP") == parse_storage_classes("GLACIER=STANDARD_IA,*=STANDARD", "MAP") == TO_IA


@pytest.mark.parametrize("text", ["GLACIER", "a=b=c", "=X", "A=*", "A=B,A=C", "sp ace=X", "A=é", "A=" + "x" * 65])
def test_a_text_that_is_no_map_is_refused_with_its_setting(text):
    assert refusal(parse_storage_classes, text).startswith("MAP")


@pytest.mark.parametrize("table", ["GLACIER", ["A"], {"A": 1}, {"A": None}, {"": "A"}, {"A": "*"}, {"A": "b c"}])
def test_a_table_that_is_no_map_is_refused_with_its_setting(table):
    assert refusal(storage_classes_from, table).startswith("MAP: ")


# That it is gone by


def ends(*, classes=TO_IA, **quirks):
    source = MemoryStore(name="source/")
    return source, MemoryStore(name="target/", storage_classes=classes, quirks=Quirks(**quirks))


def archived(source, data=b"data", storage_class="GLACIER", **more):
    stored = source.bucket.write("key", data, OLD, **more)
    source.bucket.objects["key"] = replace(stored, storage_class=storage_class)


async def converge(source, target, **settings):
    [outcome] = await Converger(source, [target], deletes=Deletes.MIRROR, **settings).converge("key")
    assert outcome.failure is None, outcome
    return outcome, target.bucket.objects["key"].storage_class if "key" in target.bucket.objects else None


@pytest.mark.parametrize(("storage_class", "expected"), [("GLACIER", "STANDARD_IA"), ("ONEZONE_IA", ""), ("", "")])
async def test_a_small_object_gets_the_class_of_the_map(storage_class, expected):
    source, target = ends()
    archived(source, storage_class=storage_class)
    assert (await converge(source, target))[1] == expected


async def test_so_does_one_that_streams():
    source, target = ends()
    archived(source, bytes(SMALL + 1))
    assert (await converge(source, target))[1] == "STANDARD_IA"


async def test_so_does_one_in_parts():
    source, target = ends()
    archived(source, DATA, part_size=PART)
    assert (await converge(source, target))[1] == "STANDARD_IA"


@pytest.mark.parametrize("data", [b"data", DATA])
async def test_so_does_one_that_is_stamped(data):
    source, target = ends(own_etags=True)
    archived(source, data, part_size=PART if data is DATA else None)
    outcome, storage_class = await converge(source, target)
    assert storage_class == "STANDARD_IA"
    assert target.bucket.objects["key"].stamp == outcome.source.etag


@pytest.mark.parametrize("part_size", [None, PART])
async def test_so_does_one_that_is_copied_inside_a_service(part_size):
    source, target = ends()
    target.can_copy_from = lambda other: True
    archived(source, DATA, part_size=part_size)
    outcome, storage_class = await converge(source, target)
    assert (outcome.bytes, storage_class) == (0, "STANDARD_IA")


async def begin_upload(target, storage_class):
    """Leaves an upload with the first part."""
    upload = await target.create_upload("key", Write(attributes=OLD, storage_class=storage_class))
    await target.put_part("key", upload, Part(1, 0, PART), DATA[:PART])
    target.calls.clear()


async def test_an_upload_of_the_class_that_is_wanted_is_taken_up_again():
    source, target = ends()
    archived(source, DATA, part_size=PART)
    await begin_upload(target, "STANDARD_IA")
    assert (await converge(source, target, resume_from=1))[1] == "STANDARD_IA"
    assert "CreateMultipartUpload" not in target.calls
    assert target.calls.count("UploadPart") == 1


async def test_an_upload_of_the_sources_class_is_not():
    source, target = ends()
    archived(source, DATA, part_size=PART)
    await begin_upload(target, "GLACIER")
    assert (await converge(source, target, resume_from=1))[1] == "STANDARD_IA"
    assert target.calls.count("UploadPart") == 2


async def test_an_object_whose_headers_are_amended_gets_the_class_that_is_wanted_for_the_sources():
    """Not the one for the class that it has by now: that would take it out of STANDARD_IA."""
    source, target = ends()
    archived(source)
    await converge(source, target)
    source.bucket.objects["key"] = replace(source.bucket.objects["key"], attributes=NEW)
    outcome, storage_class = await converge(source, target)
    assert (outcome.did, storage_class) == (Did.METADATA, "STANDARD_IA")


async def test_an_object_from_before_the_map_gets_its_class_when_it_is_amended():
    source, target = ends()
    archived(source)
    await converge(source, target)
    target.bucket.objects["key"] = replace(target.bucket.objects["key"], storage_class="GLACIER_IR", attributes=NEW)
    outcome, storage_class = await converge(source, target)
    assert (outcome.did, storage_class) == (Did.METADATA, "STANDARD_IA")


async def test_without_a_map_an_object_whose_headers_are_amended_stays_in_its_class():
    source, target = ends(classes=StorageClasses())
    archived(source)
    await converge(source, target)
    target.bucket.objects["key"] = replace(target.bucket.objects["key"], storage_class="ONEZONE_IA")
    source.bucket.objects["key"] = replace(source.bucket.objects["key"], attributes=NEW)
    outcome, storage_class = await converge(source, target)
    assert (outcome.did, storage_class) == (Did.METADATA, "ONEZONE_IA")


async def test_what_is_put_into_the_trash_stays_in_its_class():
    source, target = ends()
    archived(source)
    await converge(source, target)
    del source.bucket.objects["key"]
    await converge(source, target, trash="trash/")
    assert target.bucket.objects["trash/key"].storage_class == "STANDARD_IA"


async def test_a_class_of_the_map_that_the_target_refuses_is_named():
    source, target = ends(storage_classes=False)
    archived(source)
    outcome, storage_class = await converge(source, target)
    assert (storage_class, outcome.not_kept) == ("", ("storage class STANDARD_IA",))


async def test_each_of_two_targets_has_its_own_map():
    source, one = ends()
    other = MemoryStore(name="other/")
    archived(source)
    await Converger(source, [one, other], deletes=Deletes.KEEP).converge("key")
    assert [store.bucket.objects["key"].storage_class for store in (one, other)] == ["STANDARD_IA", "GLACIER"]
