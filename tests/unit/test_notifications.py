"""connect and disconnect, without any server: what is merged, what is refused, and what if others interfere."""

from dataclasses import replace

import pytest

from replicator.aws.bucket import Found
from replicator.aws.change import TRIES, WAITS, Change
from replicator.errors import ConfigurationError, Refused, Rejected, Transient
from replicator.notifications import (
    ALWAYS,
    Configuration,
    Entry,
    Way,
    default_id,
    entry_for,
    has_password,
    overlap,
    shown,
    topic_name,
    unknown_elements,
    way_to,
)

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:replicator"
TOPIC = "arn:aws:sns:eu-central-1:123456789012:all"
MINIO = "arn:minio:sqs::replicator:webhook"
LAMBDA = "arn:aws:lambda:eu-central-1:123456789012:function:thumbnails"
OURS = entry_for(QUEUE, id="replicator-1", prefix="photos/")

ANSWER = {
    "QueueConfigurations": [
        {
            "Id": "theirs",
            "QueueArn": "arn:aws:sqs:eu-central-1:123456789012:theirs",
            "Events": ["s3:ObjectCreated:Put"],
            "Filter": {
                "Key": {"FilterRules": [{"Name": "Prefix", "Value": "in/"}, {"Name": "Suffix", "Value": ".csv"}]}
            },
        }
    ],
    "LambdaFunctionConfigurations": [
        {"Id": "thumbs", "LambdaFunctionArn": LAMBDA, "Events": ["s3:ReducedRedundancyLostObject"]}
    ],
    "EventBridgeConfiguration": {},
}


def foreign(events, *, id="theirs", prefix="", suffix=""):
    rules = [{"Name": "Prefix", "Value": prefix}, {"Name": "Suffix", "Value": suffix}]
    return Entry(
        "LambdaFunctionConfigurations",
        {"Id": id, "LambdaFunctionArn": LAMBDA, "Events": list(events), "Filter": {"Key": {"FilterRules": rules}}},
    )


class Bucket:
    """A bucket's configuration in memory. meanwhile: what others do just before the n-th request, counted from 0.

    stale: readings after a write that still show what was there before. unknown: events that it refuses.
    """

    bucket = "b"

    def __init__(self, configuration=None, *, meanwhile=None, stale=0, unknown=(), merges=False, lossy=()):
        self.now = configuration or Configuration()
        self.shown_before = None
        self.writes = []
        self.removed = []
        self.waited = []
        self._meanwhile = meanwhile or {}
        self._requests = 0
        self._stale = stale
        self._unknown = set(unknown)
        self._merges = merges
        self._lossy = lossy

    def _request(self):
        interfere = self._meanwhile.get(self._requests)
        self._requests += 1
        if interfere is not None:
            self.now = interfere(self.now)

    def read(self):
        self._request()
        if self.writes and self._stale:
            self._stale -= 1
            return Found(self.shown_before)
        return Found(self.now, self._merges, self._lossy)

    def write(self, configuration, *, validate=True):
        self._request()
        asked = {event for entry in configuration.entries for event in entry.events}
        if asked & self._unknown:
            raise Rejected("Put", "b", "unknown event", code="InvalidArgument")
        self.shown_before = self.now
        self.writes.append(configuration)
        if self._merges:
            keys = {(one.id, one.arn) for one in configuration.entries}
            kept = tuple(one for one in self.now.entries if (one.id, one.arn) not in keys)
            configuration = Configuration(kept + configuration.entries)
        self.now = configuration

    def remove(self, id):
        self.removed.append(id)
        first = self.now.of(id)[:1]
        self.now = Configuration(tuple(one for one in self.now.entries if one not in first))


def change(bucket, id="replicator-1", **more):
    return Change(bucket, id, sleep=bucket.waited.append, **more)


def adding(entry):
    return lambda now: replace(now, entries=(*now.entries, entry))


# ------------------------------------------------------------------------------------------------ what is pure


def test_a_configuration_goes_back_as_it_came():
    assert Configuration.from_answer({**ANSWER, "ResponseMetadata": {}}).as_request() == ANSWER


def test_an_empty_configuration_is_an_empty_request():
    assert Configuration.from_answer({"ResponseMetadata": {}}).as_request() == {}


def test_an_entry_tells_of_all_that_can_change_a_copy_below_its_prefix():
    assert OURS.raw == {
        "Id": "replicator-1",
        "QueueArn": QUEUE,
        "Events": [
            "s3:ObjectCreated:*",
            "s3:ObjectRemoved:*",
            "s3:LifecycleExpiration:*",
            "s3:ObjectTagging:*",
            "s3:ObjectRestore:Completed",
        ],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "photos/"}]}},
    }


def test_an_entry_for_the_whole_bucket_has_no_filter():
    assert "Filter" not in entry_for(TOPIC, id="x", prefix="").raw
    assert entry_for(TOPIC, id="x", prefix="").of == "TopicConfigurations"


def test_minio_is_only_asked_for_events_that_it_has():
    entry = entry_for(MINIO, id="x", prefix="")
    assert entry.of == "QueueConfigurations"
    assert entry.events == (*ALWAYS, "s3:LifecycleDelMarkerExpiration:Delete", "s3:ObjectRestore:Completed")


@pytest.mark.parametrize(
    ("events", "prefix", "suffix", "shared"),
    [
        (["s3:ObjectCreated:*"], "", "", "s3:ObjectCreated:*"),
        (["s3:ObjectCreated:Put"], "", "", "s3:ObjectCreated:*"),
        (["s3:ObjectRestore:*"], "", "", "s3:ObjectRestore:Completed"),
        (["s3:ObjectRestore:Post"], "", "", None),
        (["s3:ObjectAcl:Put", "s3:Replication:*"], "", "", None),
        (["s3:ObjectRemoved:Delete"], "photos/2026/", "", "s3:ObjectRemoved:*"),
        (["s3:ObjectRemoved:Delete"], "ph", "", "s3:ObjectRemoved:*"),
        (["s3:ObjectRemoved:Delete"], "papers/", "", None),
        (["s3:ObjectRemoved:Delete"], "photos/", ".jpg", "s3:ObjectRemoved:*"),
        (["s3:ObjectRemoved:Delete"], "papers/", ".jpg", None),
    ],
)
def test_two_entries_overlap_when_they_share_an_event_and_can_share_a_key(events, prefix, suffix, shared):
    other = foreign(events, prefix=prefix, suffix=suffix)
    assert overlap(OURS, [other]) == (None if shared is None else (other, shared))


def test_entries_with_suffixes_that_no_key_can_have_both_do_not_overlap():
    one, other = foreign(["s3:ObjectCreated:*"], suffix=".jpg"), foreign(["s3:ObjectCreated:*"], suffix=".png")
    assert overlap(one, [other]) is None
    assert overlap(one, [foreign(["s3:ObjectCreated:*"], suffix="g")]) is not None


@pytest.mark.parametrize(
    ("destination", "way"),
    [
        (QUEUE, Way.ARN),
        (TOPIC, Way.ARN),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:q", Way.ARN),
        (MINIO, Way.ARN),
        ("arn:aws:sns:default::t", Way.ARN),
        ("EventBridge", Way.EVENT_BRIDGE),
        ("https://sqs.eu-central-1.amazonaws.com/123456789012/q", Way.QUEUE_URL),
        ("http://127.0.0.1:4566/000000000000/q", Way.QUEUE_URL),
        ("http://hooks.example.org:8080/events?token=x", Way.WEBHOOK),
        ("https://user:secret@hooks.example.org", Way.WEBHOOK),
    ],
)
def test_a_destination_says_by_itself_how_it_is_reached(destination, way):
    assert way_to(destination) is way


@pytest.mark.parametrize(
    "destination",
    [
        "",
        "queue",
        LAMBDA,
        QUEUE + ".fifo",
        "https://sqs.eu-central-1.amazonaws.com/123456789012/q.fifo",
        "http://",
        "http://h:99999/",
        "http://h/a b",
        "arn:aws:sqs:::a b",
    ],
)
def test_what_no_bucket_can_tell_is_refused(destination):
    with pytest.raises(ConfigurationError):
        way_to(destination)


def test_what_is_said_of_a_url_has_no_secret():
    assert shown("https://user:secret@h.example:81/events?token=secret") == "https://h.example:81/events"
    assert has_password("https://user:secret@h/x")
    assert not has_password("https://h/x?a=b@c")


@pytest.mark.parametrize("destination", ["ftp://user:secret@h/x", "http://user:secret@h:port/?token=secret"])
def test_a_destination_that_is_refused_is_not_repeated_as_it_may_hold_a_secret(destination):
    with pytest.raises(ConfigurationError) as refusal:
        way_to(destination)
    assert "secret" not in str(refusal.value)


def test_names_are_the_same_for_the_same_and_different_for_others():
    assert default_id("b", "x/") == default_id("b", "x/") != default_id("b", "")
    assert topic_name("my.bucket_1", "replicator-1") != topic_name("my-bucket-1", "replicator-1")
    assert topic_name("my.bucket_1", "a").startswith("replicator-my-bucket-1-")


def test_elements_that_boto3_does_not_know_are_found_in_the_document():
    known = b"""<?xml version="1.0"?><NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
    <TopicConfiguration><Id>a</Id><Topic>t</Topic><Event>e</Event><Filter><S3Key><FilterRule><Name>prefix</Name>
    <Value>&lt;x&gt;</Value></FilterRule></S3Key></Filter></TopicConfiguration><EventBridgeConfiguration/>
    </NotificationConfiguration>"""
    assert unknown_elements(known) == []
    assert unknown_elements(known.replace(b"S3Key>", b"S3Tags>")) == ["S3Tags"]


# ------------------------------------------------------------------------------------------------ where S3 replaces all


def test_our_entry_is_added_and_all_others_stay_as_they_were():
    bucket = Bucket(Configuration.from_answer(ANSWER))
    said = change(bucket).subscribe(OURS)
    assert said == [f"s3://b/photos/: tells {QUEUE} of its changes, as replicator-1"]
    theirs, ours = ANSWER["QueueConfigurations"][0], dict(OURS.raw)
    assert bucket.now.as_request() == {**ANSWER, "QueueConfigurations": [theirs, ours]}


def test_nothing_is_written_when_there_is_nothing_to_do():
    bucket = Bucket(adding(OURS)(Configuration.from_answer(ANSWER)))
    assert change(bucket).subscribe(OURS) == []
    assert bucket.writes == []


def test_an_entry_that_came_back_in_another_order_and_spelling_is_the_same():
    back = {**OURS.raw, "Events": list(reversed(OURS.events))}
    back["Filter"] = {"Key": {"FilterRules": [{"Name": "Prefix", "Value": "photos/"}]}}
    bucket = Bucket(Configuration((Entry(OURS.of, back),)))
    assert change(bucket).subscribe(OURS) == []


def test_our_entry_is_replaced_when_it_should_be_another():
    bucket = Bucket(Configuration((entry_for(TOPIC, id="replicator-1", prefix=""), foreign(["s3:ObjectAcl:Put"]))))
    change(bucket).subscribe(OURS)
    assert bucket.now.of("replicator-1") == (OURS,)
    assert len(bucket.now.entries) == 2


def test_our_entry_is_replaced_when_its_prefix_is_another():
    bucket = Bucket(Configuration((entry_for(QUEUE, id="replicator-1", prefix="films/"),)))
    change(bucket).subscribe(OURS)
    assert bucket.now.entries == (OURS,)


def test_an_overlap_is_refused_with_its_name_before_anything_is_written():
    bucket = Bucket(Configuration((foreign(["s3:ObjectCreated:Put"], id="thumbnails", prefix="photos/in/"),)))
    with pytest.raises(
        Refused, match=f"thumbnails already tells {LAMBDA} of s3:ObjectCreated:\\* of keys under 'photos/in/'"
    ):
        change(bucket).subscribe(OURS)
    assert bucket.writes == []


def test_minio_may_tell_two_of_the_same():
    bucket = Bucket(Configuration((foreign(ALWAYS),)))
    change(bucket).subscribe(entry_for(MINIO, id="replicator-1", prefix=""))
    assert len(bucket.now.entries) == 2


def test_minio_filling_in_its_region_is_no_change():
    back = entry_for(MINIO.replace("sqs::", "sqs:us-east-1:"), id="replicator-1", prefix="")
    assert change(Bucket(Configuration((back,)))).subscribe(entry_for(MINIO, id="replicator-1", prefix="")) == []


def test_what_would_be_lost_by_writing_it_back_is_not_written_back():
    bucket = Bucket(lossy=("S3Tags",))
    with pytest.raises(Refused, match="S3Tags"):
        change(bucket).subscribe(OURS)
    assert bucket.writes == []


def test_a_dry_run_says_the_same_and_writes_nothing():
    bucket = Bucket(Configuration.from_answer(ANSWER))
    assert change(bucket, dry_run=True).subscribe(OURS) == change(Bucket()).subscribe(OURS)
    assert bucket.writes == []


def test_a_write_that_is_not_to_be_seen_at_once_is_waited_for():
    bucket = Bucket(Configuration.from_answer(ANSWER), stale=3)
    change(bucket).subscribe(OURS)
    assert len(bucket.writes) == 1
    assert bucket.waited == list(WAITS[:4])


def test_a_write_that_is_never_seen_is_an_error():
    bucket = Bucket(stale=1000)
    with pytest.raises(Transient, match="not to be seen after 16 s: run it again"):
        change(bucket).subscribe(OURS)


NEW = foreign(["s3:ObjectAcl:Put"], id="new")


def test_what_appears_between_reading_and_writing_is_not_lost():
    bucket = Bucket(Configuration.from_answer(ANSWER), meanwhile={1: adding(NEW)})
    said = change(bucket).subscribe(OURS)
    assert NEW in bucket.now.entries
    assert OURS in bucket.now.entries
    assert said[1] == "b: somebody else changed its notifications at the same time: looked again"


def test_event_bridge_switched_on_between_reading_and_writing_stays_on():
    bucket = Bucket(meanwhile={1: lambda now: replace(now, event_bridge={})})
    change(bucket).subscribe(OURS)
    assert bucket.now == Configuration((OURS,), {})


def test_the_same_of_others_in_another_order_and_spelling_is_no_change():
    theirs = foreign(["s3:ObjectAcl:Put", "s3:Replication:*"], prefix="a/", suffix="b")
    rules = [{"Name": "suffix", "Value": "b"}, {"Name": "prefix", "Value": "a/"}]
    spelt = {
        **theirs.raw,
        "Events": ["s3:Replication:*", "s3:ObjectAcl:Put"],
        "Filter": {"Key": {"FilterRules": rules}},
    }
    other = Entry(theirs.of, spelt)
    bucket = Bucket(Configuration((theirs,)), meanwhile={1: lambda now: Configuration((other,))})
    assert len(change(bucket).subscribe(OURS)) == 1


def test_what_vanishes_between_reading_and_writing_does_not_come_back():
    bucket = Bucket(Configuration((NEW,)), meanwhile={1: lambda now: now.without("new")})
    change(bucket).subscribe(OURS)
    assert bucket.now.entries == (OURS,)


def test_somebody_who_overwrites_ours_is_noticed_and_ours_put_in_again():
    bucket = Bucket(meanwhile={3: lambda now: Configuration((NEW,))})
    said = change(bucket).subscribe(OURS)
    assert bucket.now.entries == (NEW, OURS)
    assert any("somebody else" in line for line in said)


def test_an_overlap_that_appears_meanwhile_is_refused():
    bucket = Bucket(meanwhile={1: adding(foreign(ALWAYS, id="quick"))})
    with pytest.raises(Refused, match="quick already tells"):
        change(bucket).subscribe(OURS)
    assert bucket.writes == []


def test_somebody_who_never_stops_is_left_alone_in_the_end():
    always = {n: adding(foreign(["s3:ObjectAcl:Put"], id=f"n{n}")) for n in range(100)}
    bucket = Bucket(meanwhile=always)
    with pytest.raises(Refused, match="keeps changing"):
        change(bucket).subscribe(OURS)
    assert bucket.writes == []
    assert bucket._requests == 2 * TRIES


def test_disconnect_takes_out_ours_only_and_is_idempotent():
    bucket = Bucket(adding(OURS)(Configuration.from_answer(ANSWER)))
    assert change(bucket).unsubscribe() == ["b: removed replicator-1"]
    assert bucket.now.as_request() == ANSWER
    assert change(bucket).unsubscribe() == []
    assert len(bucket.writes) == 1


def test_event_bridge_is_switched_on_and_off_and_nothing_else_changes():
    bucket = Bucket(Configuration((OURS,)))
    assert change(bucket).switch_event_bridge(on=True) == ["b: tells EventBridge of all its changes"]
    assert bucket.now == Configuration((OURS,), {})
    assert change(bucket).switch_event_bridge(on=True) == []
    assert change(bucket).switch_event_bridge(on=False) == ["b: no longer tells EventBridge of all its changes"]
    assert bucket.now == Configuration((OURS,))


def test_event_bridge_stays_when_our_entry_goes():
    bucket = Bucket(Configuration((OURS,), {}))
    change(bucket).unsubscribe()
    assert bucket.now == Configuration((), {})


# ------------------------------------------------------------------------------------------------ unknown events


def test_a_store_that_knows_fewer_events_gets_those_that_it_knows_and_the_rest_is_said():
    bucket = Bucket(unknown=["s3:ObjectTagging:*", "s3:LifecycleExpiration:*"])
    said = change(bucket).subscribe(OURS)
    assert set(bucket.now.entries[0].events) == {
        *ALWAYS,
        "s3:ObjectLifecycle:Expiration:*",
        "s3:ObjectRestore:Completed",
    }
    assert said[1:] == ["b: does not tell of changes of tags: reconciliation has to find them"]


def test_a_destination_that_is_refused_with_any_events_is_explained():
    bucket = Bucket(unknown=ALWAYS)
    with pytest.raises(
        ConfigurationError, match=r"cannot tell .*InvalidArgument.*policy.*sqs:SendMessage.*arn:aws:s3:::b"
    ):
        change(bucket).subscribe(OURS)
    assert bucket.writes == []


# ------------------------------------------------------------------------------------------------ where a write adds


def test_only_our_entry_is_written_where_a_write_adds():
    bucket = Bucket(Configuration((foreign(ALWAYS),)), merges=True)
    change(bucket).add(OURS, bucket.read(), again=False)
    assert bucket.writes == [Configuration((OURS,))]
    assert len(bucket.now.entries) == 2


def test_fewer_events_are_enough_where_the_store_knew_no_more():
    bucket = Bucket(Configuration((OURS.with_events(ALWAYS),)), merges=True)
    assert change(bucket).add(OURS, bucket.read(), again=False) == []
    assert bucket.writes == []
    change(bucket).add(OURS, bucket.read(), again=True)
    assert len(bucket.writes) == 1


def test_the_same_id_with_another_topic_is_refused_where_it_would_not_be_replaced():
    bucket = Bucket(Configuration((entry_for(TOPIC, id="replicator-1", prefix=""),)), merges=True)
    with pytest.raises(Refused, match=f"tells {TOPIC} already: give this one another --id"):
        change(bucket).refuse_another_topic(bucket.read(), QUEUE)
    change(bucket).refuse_another_topic(bucket.read(), ":all")


def test_all_with_our_id_are_removed_where_a_write_adds():
    bucket = Bucket(Configuration((OURS, entry_for(TOPIC, id="replicator-1", prefix=""), NEW)), merges=True)
    change(bucket).drop(bucket.read())
    assert bucket.now.entries == (NEW,)


def test_only_our_id_is_removed_where_a_write_adds():
    bucket = Bucket(Configuration((OURS, NEW)), merges=True)
    assert change(bucket).drop(bucket.read()) == ["b: removed replicator-1"]
    assert bucket.removed == ["replicator-1"]
    assert change(bucket).drop(bucket.read()) == []
    assert (bucket.now.entries, bucket.writes) == ((NEW,), [])
