"""Routes: how they are read, what is refused, which of them an event's key is about."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from replicator.cli.options import settings_from
from replicator.converge import Converger
from replicator.errors import ConfigurationError, Transient
from replicator.filters import KeyFilter, Rule
from replicator.model import Deletes, Did
from replicator.routes import read_route, read_routes, routes_for
from replicator.settings import Settings
from replicator.storage_classes import StorageClasses
from tests.fakes.memory import MemoryStore

ENDPOINTS = """
[endpoints.ceph]
url = "https://ceph.example"
secret_id = "keys/of/ceph"

[endpoints.nas]
url = "http://nas:9000"
region = "here"
"""

IN_IA = StorageClasses((("GLACIER", "STANDARD_IA"),))


def parsed(text):
    return tomllib.loads(ENDPOINTS + text)


def routes(text, **environment):
    return read_routes(environment, parsed(text))


def route(text, **environment):
    """The only one, of its lines below source and targets."""
    [one] = routes(f'[routes.one]\nsource = "s3://from"\ntargets = "s3://to"\n{text}', **environment)
    return one


def refusals(text, **environment):
    with pytest.raises(ConfigurationError) as caught:
        routes(text, **environment)
    return str(caught.value).splitlines()


def refusal(text, **environment):
    (line,) = refusals(f'[routes.one]\nsource = "s3://from"\ntargets = "s3://to"\n{text}', **environment)
    return line


def between(**places):
    """The text of routes: name = (source, target, deletes)."""
    return "".join(
        f'[routes.{name}]\nsource = "{source}"\ntargets = "{target}"\ndeletes = "{deletes}"\n'
        for name, (source, target, deletes) in places.items()
    )


# How they are read


def test_a_route_has_a_name_a_source_and_targets_and_the_rest_is_as_usual():
    one = route("")
    assert (one.name, one.source.location, [side.location for side in one.targets]) == (
        "one",
        "s3://from/",
        ["s3://to/"],
    )
    usual = Settings.from_env({"SOURCE_BUCKET": "from", "TARGET_BUCKET": "to"})
    assert (one.deletes, one.keys, one.max_deletes_per_hour, one.delete_share, one.concurrency) == (
        *(usual.deletes, usual.keys, usual.max_deletes_per_hour, usual.delete_share, usual.concurrency),
    )
    assert (usual.name, usual.max_deletes_per_hour, usual.delete_share) == ("default", 1000, 0.1)


def test_routes_come_in_the_order_of_the_file():
    found = routes(between(z=("a-1", "b-1", "keep"), a=("a-2", "b-2", "keep")))
    assert [one.name for one in found] == ["z", "a"]


def test_sources_and_targets_may_be_at_endpoints_with_names_below_prefixes():
    [one] = routes('[routes.one]\nsource = "nas:from/photos"\ntargets = ["ceph:to/copies/photos", "s3://third"]\n')
    assert (one.source.endpoint, one.source.region, one.source.prefix) == ("http://nas:9000", "here", "photos/")
    assert [(side.endpoint, side.prefix) for side in one.targets] == [
        ("https://ceph.example", "copies/photos/"),
        (None, ""),
    ]


def test_an_endpoint_may_name_the_secret_with_its_keys():
    [one] = routes('[routes.one]\nsource = "s3://from"\ntargets = "ceph:to"\n')
    assert one.targets[0].secret_id == "keys/of/ceph"


def test_keys_in_variables_go_before_the_secret_of_the_file():
    [one] = routes(
        '[routes.one]\nsource = "s3://from"\ntargets = "ceph:to"\n',
        CEPH_ACCESS_KEY_ID="id",
        CEPH_SECRET_ACCESS_KEY="hush",
    )
    assert (one.targets[0].secret_id, one.targets[0].access_key_id) == (None, "id")


def test_a_secret_in_a_variable_goes_before_the_one_of_the_file():
    [one] = routes('[routes.one]\nsource = "s3://from"\ntargets = "ceph:to"\n', CEPH_SECRET_ID="another")
    assert one.targets[0].secret_id == "another"


def test_rules_are_kept_in_their_order_and_the_last_match_decides():
    keys = route('keys = ["exclude *", "include *.jpg", "exclude tmp/*"]').keys
    assert keys == KeyFilter([Rule(False, "*"), Rule(True, "*.jpg"), Rule(False, "tmp/*")])
    assert [key for key in ("a.jpg", "a.txt", "tmp/a.jpg") if keys.includes(key)] == ["a.jpg"]


def test_a_pattern_may_have_blanks():
    assert route('keys = ["exclude old and new/*"]').keys == KeyFilter([Rule(False, "old and new/*")])


def test_a_route_says_how_many_deletes_it_takes():
    one = route('deletes = "mirror"\nmax_deletes_per_hour = 0\ndelete_share = 1\n')
    assert (one.deletes, one.max_deletes_per_hour, one.delete_share) == (Deletes.MIRROR, 0, 1.0)


def test_what_a_route_does_not_say_comes_from_the_variables():
    environment = {"DELETES": "mirror", "MAX_DELETES_PER_HOUR": "7", "DELETE_SHARE": "0.5", "CONCURRENCY": "3"}
    environment |= {"TARGET_STORAGE_CLASSES": "GLACIER=STANDARD_IA", "SOURCE_STORAGE_CLASSES": "GLACIER=X"}
    environment |= {"MEMORY_BYTES": str(2**25), "PROCESSES": "2", "MAX_RPS": "9", "BANDWIDTH": "2M"}
    one = route("", **environment)
    assert (one.deletes, one.max_deletes_per_hour, one.delete_share) == (Deletes.MIRROR, 7, 0.5)
    assert (one.concurrency, one.memory, one.processes, one.max_rps, one.bandwidth) == (3, 2**25, 2, 9, 2**21)
    assert (one.targets[0].storage_classes, one.source.storage_classes) == (IN_IA, StorageClasses())
    said = 'deletes = "keep"\nmax_deletes_per_hour = 8\ndelete_share = 0.25\nstorage_classes = {}\n'
    other = route(said, **environment)
    assert (other.deletes, other.max_deletes_per_hour, other.delete_share) == (Deletes.KEEP, 8, 0.25)
    assert other.targets[0].storage_classes == StorageClasses()


def test_storage_classes_are_those_of_the_route_unless_a_target_has_its_own():
    text = """
        [routes.one]
        source = "s3://from"
        targets = ["s3://to", { location = "nas:to", storage_classes = { "*" = "STANDARD" } }]
        storage_classes = { GLACIER = "STANDARD_IA" }
    """
    [one] = routes(text)
    assert [side.storage_classes for side in one.targets] == [IN_IA, StorageClasses((("*", "STANDARD"),))]


def test_a_named_endpoint_has_a_variable_for_its_storage_classes():
    [one] = routes('[routes.one]\nsource="s3://from"\ntargets="nas:to"', NAS_STORAGE_CLASSES="GLACIER=STANDARD_IA")
    assert one.targets[0].storage_classes == IN_IA


@pytest.mark.parametrize("text", ["", "[routes]\n"])
def test_without_routes_there_is_the_one_of_the_environment(text):
    environment = {"SOURCE_BUCKET": "from", "TARGET_BUCKET": "nas:to", "MAX_DELETES_PER_HOUR": "5"}
    assert routes(text, **environment) == (Settings.from_env(environment, config=parsed(text)),)


def test_with_routes_the_buckets_of_the_environment_are_not_meant():
    assert [one.name for one in routes(between(one=("aa", "bb", "keep")), SOURCE_BUCKET="from")] == ["one"]


def test_the_example_of_the_documentation_is_one():
    text = (Path(__file__).parents[2] / "docs" / "ROUTES.md").read_text()
    example = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    assert [one.name for one in read_routes({}, example)] == list(example["routes"])


# What is refused


@pytest.mark.parametrize(
    ("text", "named", "nearest"),
    [
        ('target = "x"', "target", "targets"),
        ('delets = "mirror"', "delets", "deletes"),
        ("max_delete_per_hour = 1", "max_delete_per_hour", "max_deletes_per_hour"),
        ('storage-classes = { A = "B" }', "storage-classes", "storage_classes"),
        ("zzz = 1", "zzz", "source, targets, deletes"),
    ],
)
def test_a_setting_that_is_none_is_named_with_the_nearest_that_is(text, named, nearest):
    line = refusal(text)
    assert line.startswith(f"[routes.one]: {named!r} is no setting: ")
    assert nearest in line


def test_a_table_that_is_none_is_named_and_does_not_fall_back_to_the_environment():
    text = '[route.one]\nsource = "s3://from"\ntargets = "s3://to"\n'
    (line,) = refusals(text, SOURCE_BUCKET="from", TARGET_BUCKET="to")
    assert line == "replicator.toml: 'route' is no setting: 'routes' is meant?"


def test_a_setting_of_a_target_that_is_none_is_named():
    (line,) = refusals('[routes.one]\nsource = "s3://from"\ntargets = [{ locations = "x", location = "s3://to" }]')
    assert line == "[routes.one] targets: 'locations' is no setting: 'location' is meant?"


@pytest.mark.parametrize(
    "text",
    [
        'deletes = "yes"',
        "deletes = true",
        'deletes = ["mirror"]',
        "max_deletes_per_hour = -1",
        "max_deletes_per_hour = true",
        "max_deletes_per_hour = 1.0",
        'max_deletes_per_hour = "1"',
        "delete_share = 1.1",
        "delete_share = -0.1",
        "delete_share = nan",
        "delete_share = true",
        'delete_share = "10%"',
        'keys = "exclude *"',
        'keys = ["exclude"]',
        'keys = ["exclude "]',
        'keys = ["- *.tmp"]',
        "keys = [1]",
        'keys = ["include *.jpg"]',
        'storage_classes = "GLACIER=X"',
        "storage_classes = { A = 1 }",
    ],
)
def test_a_value_that_is_none_is_named_with_its_route(text):
    line = refusal(text)
    assert line.startswith("[routes.one] ")
    assert text.split(" ")[0] in line


def test_whoever_writes_rules_as_for_rclone_is_told_that_they_mean_something_else():
    assert "the last that matches decides; in rclone's filters it is the first" in refusal('keys = ["+ *.jpg"]')


def test_all_that_is_wrong_is_said_at_once_and_once():
    lines = refusals(
        """
        [routes.one]
        source = "s3://-x"
        targets = []
        [routes."two words"]
        source = "nowhere:from"
        targets = ["nowhere:to", 7]
        [routes.three]
        targets = "s3://to"
        deletes = 1
        """,
        CONCURRENCY="many",
        DELETE_SHARE="lots",
    )
    begins = [
        "CONCURRENCY='many': ",
        "DELETE_SHARE='lots': ",
        "[routes.one] source='-x': ",
        "[routes.one] targets: ",
        "[routes.two words]: ",
        "nowhere: replicator.toml has no [endpoints.nowhere]",
        "[routes.two words] targets: ",
        "[routes.three] source: ",
        "[routes.three] deletes = 1: ",
    ]
    assert [next(start for start in begins if line.startswith(start)) for line in lines] == begins


@pytest.mark.parametrize("text", ["routes = 1", "routes = []", "routes.one = 1", "[[routes]]"])
def test_routes_that_are_no_tables_are_refused(text):
    with pytest.raises(ConfigurationError, match="routes"):
        read_routes({"SOURCE_BUCKET": "from", "TARGET_BUCKET": "to"}, tomllib.loads(text))


def test_names_that_differ_in_capitals_only_are_refused():
    (line,) = refusals(between(photos=("aa", "bb", "keep"), Photos=("cc", "dd", "keep")))
    assert line.startswith("[routes.Photos]: there is [routes.photos] already")


def test_secrets_are_in_no_refusal():
    lines = refusals(
        '[routes.one]\nsource = "s3://from"\ntargets = "ceph:from"\nsecret_access_key = "table-hush"\n',
        CEPH_SECRET_ACCESS_KEY="variable-hush",
    )
    assert len(lines) == 2
    assert "hush" not in "\n".join(lines)


@pytest.mark.parametrize("text", ["1.01", "-0.1", "10%", "nan", "1e-1", "0,1"])
def test_a_share_in_a_variable_that_is_none_is_refused(text):
    assert refusal("", DELETE_SHARE=text) == f"DELETE_SHARE={text!r}: must be a number from 0 to 1, as 0.1"


@pytest.mark.parametrize(("text", "share"), [("0", 0), ("1", 1), ("1.0", 1), (".25", 0.25), ("0.1", 0.1), ("", 0.1)])
def test_a_share_in_a_variable_is_a_part_of_one(text, share):
    assert route("", DELETE_SHARE=text).delete_share == share


# Routes that do not go together


def test_a_route_into_itself_is_refused():
    (line,) = refusals(between(one=("s3://aa", "s3://aa/copy", "keep")))
    assert line.startswith("[routes.one] ")
    assert "overlap" in line


def test_two_ways_are_refused_with_the_reason():
    (line,) = refusals(between(there=("s3://aa", "nas:bb", "keep"), back=("nas:bb", "s3://aa", "keep")))
    assert line.startswith("[routes.there] -> [routes.back] -> [routes.there]: a change would go round in a circle")
    assert "rules for conflicts" in line


def test_a_circle_of_three_is_one_line():
    (line,) = refusals(between(x=("aa", "bb", "keep"), y=("bb", "cc/d", "keep"), z=("cc", "aa/b/c", "keep")))
    assert line.startswith("[routes.x] -> [routes.y] -> [routes.z] -> [routes.x]: ")


def test_two_circles_are_two_lines():
    lines = refusals(
        between(a=("aa", "bb", "keep"), b=("bb", "aa", "keep"), c=("cc", "dd", "keep"), d=("dd", "cc", "keep"))
    )
    assert len(lines) == 2


@pytest.mark.parametrize(
    "places",
    [
        {"x": ("aa", "bb", "mirror"), "y": ("bb", "cc", "mirror")},
        {"x": ("aa/in", "bb", "mirror"), "y": ("bb", "aa/out", "mirror")},
        {"x": ("s3://aa", "nas:bb", "mirror"), "y": ("ceph:bb", "s3://aa", "mirror")},
        {"x": ("aa", "bb", "mirror"), "y": ("aa", "cc", "mirror")},
        {"x": ("aa", "cc/a", "mirror"), "y": ("bb", "cc/b", "mirror")},
        {"x": ("aa", "cc", "keep"), "y": ("bb", "cc", "keep")},
        {"x": ("s3://aa", "nas:cc", "mirror"), "y": ("s3://bb", "ceph:cc", "mirror")},
        {"x": ("aa", "cc", "mirror"), "y": ("aa", "cc", "mirror")},
        {"x": ("aa", "cc", "mirror"), "y": ("aa/sub", "cc/sub", "keep")},
    ],
    ids=[
        *("chain", "side by side", "other endpoint", "two targets", "two prefixes", "nothing deleted", "two endpoints"),
        *("one origin", "one origin below a prefix"),
    ],
)
def test_these_go_together(places):
    assert len(routes(between(**places))) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("aa", "cc", "mirror"), ("bb", "cc", "mirror")),
        (("aa", "cc", "mirror"), ("bb", "cc", "keep")),
        (("aa", "cc", "keep"), ("bb", "cc/dir", "mirror")),
        (("aa", "cc/dir", "keep"), ("bb", "cc", "mirror")),
        (("aa", "cc", "mirror"), ("aa/sub", "cc", "mirror")),
        (("aa", "cc", "mirror"), ("aa/sub", "cc/other", "mirror")),
        (("s3://aa", "cc", "mirror"), ("nas:aa", "cc", "mirror")),
    ],
)
def test_a_route_that_would_delete_what_another_wrote_is_refused(one, other):
    (line,) = refusals(between(x=one, y=other))
    assert line.startswith("[routes.x] and [routes.y] both write to s3://cc/")
    assert "one would delete what the other wrote" in line


# One of them by its name


def test_a_route_is_found_by_its_name_and_may_be_told_to_delete():
    text = between(x=("aa", "bb", "keep"), y=("cc", "dd", "keep"))
    assert read_route({}, parsed(text), "y").source.bucket == "cc"
    assert read_route({}, parsed(text), "y", deletes=Deletes.MIRROR).deletes is Deletes.MIRROR


def test_what_a_route_is_told_to_delete_must_go_together_with_the_others():
    text = between(x=("aa", "cc", "keep"), y=("bb", "cc", "keep"))
    with pytest.raises(ConfigurationError, match="both write to s3://cc/"):
        read_route({}, parsed(text), "y", deletes=Deletes.MIRROR)


@pytest.mark.parametrize(
    ("text", "hint"), [(between(photos=("aa", "bb", "keep")), "'photos' is meant"), ("", "nor any")]
)
def test_a_name_that_there_is_not_is_refused(text, hint):
    with pytest.raises(ConfigurationError, match=hint):
        read_route({}, parsed(text), "fotos")


def on_the_command_line(tmp_path, text, source=None, *targets, **options):
    (tmp_path / "replicator.toml").write_text(ENDPOINTS + text)
    return settings_from(source, targets, str(tmp_path / "replicator.toml"), options)


def test_the_command_line_goes_before_the_route(tmp_path):
    text = between(x=("s3://aa", "nas:bb", "keep"))
    chosen = on_the_command_line(tmp_path, text, route="x", concurrency=5, deletes="mirror", max_rps=None)
    assert (chosen.name, chosen.concurrency, chosen.deletes, chosen.max_rps) == ("x", 5, Deletes.MIRROR, None)


@pytest.mark.parametrize(
    ("places", "options", "named"),
    [
        (("s3://cc",), {}, "s3://cc"),
        ((None, "s3://dd"), {}, "s3://dd"),
        ((), {"target_endpoint": "http://e"}, "--target-endpoint"),
    ],
)
def test_a_route_and_a_place_are_refused_together(tmp_path, places, options, named):
    with pytest.raises(ConfigurationError, match=f"^--route x and {named}: "):
        on_the_command_line(tmp_path, between(x=("aa", "bb", "keep")), *places, route="x", **options)


# Which of them an event's key is about


def taken(text, bucket, key):
    return [(one.name, below) for one, below in routes_for(routes(text), bucket, key)]


@pytest.mark.parametrize(
    ("bucket", "key", "expected"),
    [
        ("aa", "photos/1.jpg", [("all", "photos/1.jpg"), ("photos", "1.jpg")]),
        ("aa", "photos/1.tmp", [("all", "photos/1.tmp")]),
        ("aa", "other", [("all", "other")]),
        ("aa", "photos", [("all", "photos")]),
        ("aa", "photos/", [("all", "photos/")]),
        ("aa", "photos//1.jpg", [("all", "photos//1.jpg"), ("photos", "/1.jpg")]),
        ("aa", "", []),
        ("bb", "photos/1.jpg", []),
        ("aab", "photos/1.jpg", []),
    ],
)
def test_a_key_is_of_every_route_whose_bucket_prefix_and_filter_it_fits(bucket, key, expected):
    text = between(all=("aa", "xx", "keep"), photos=("aa/photos", "yy", "keep")) + 'keys = ["exclude *.tmp"]\n'
    assert taken(text, bucket, key) == expected


def test_buckets_of_one_name_at_two_endpoints_are_both_meant():
    text = between(here=("s3://aa", "xx", "keep"), there=("nas:aa", "yy", "keep"))
    assert taken(text, "aa", "key") == [("here", "key"), ("there", "key")]


# One target that fails


class Down(MemoryStore):
    """A target that does not answer."""

    def __init__(self):
        super().__init__(name="down/", step=self.fail)

    async def fail(self, operation, key):
        raise Transient(operation, key, "connection refused")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_target_that_is_down_does_not_hold_back_the_other(order):
    source, up, down = MemoryStore(name="source/"), MemoryStore(name="up/"), Down()
    source.bucket.write("key", b"data")
    up.bucket.write("gone", b"data")
    targets = [(up, down)[n] for n in order]
    converger = Converger(source, targets, deletes=Deletes.MIRROR)
    for key, did in [("key", Did.COPIED), ("gone", Did.DELETED)]:
        outcomes = {outcome.target: outcome for outcome in await converger.converge(key)}
        assert outcomes["up/"].did is did
        assert (outcomes["down/"].did, type(outcomes["down/"].failure)) == (Did.FAILED, Transient)
    assert list(up.bucket.objects) == ["key"]
    assert up.bucket.objects["key"].data == b"data"
