"""Owns the promise of replicator.events: every known notification names exactly the keys it may mean, and
whatever cannot be understood is poison with a reason a person can act on. The samples lie in tests/events."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.errors import PoisonMessage
from replicator.events import ChangedKey, Notification, messages_of, parse_message

EVENTS = Path(__file__).parents[1] / "events"
INSTANT = datetime(2025, 3, 14, 9, 26, 53, 589000, tzinfo=UTC)
SECOND = INSTANT.replace(microsecond=0)
MICROSECOND = INSTANT.replace(microsecond=589793)
AWKWARD = "reports/red flower + 100% grün/a%2Fb.jpg"


def named(
    bucket: str, *candidates: str, event: str = "ObjectCreated:Put", time: datetime | None = INSTANT
) -> ChangedKey:
    return ChangedKey(bucket=bucket, candidates=candidates, event=event, time=time)


def text_of(name: str) -> str:
    return (EVENTS / f"{name}.json").read_text(encoding="utf-8")


def s3_record(**changes: object) -> dict[str, Any]:
    """A valid record of AWS; `changes` replace fields by dotted names written with double underscores."""
    record: dict[str, Any] = {
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "eventTime": "2025-03-14T09:26:53.589Z",
        "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = record
        for name in parents:
            node = node[name]
        node[last] = value
    return record


def s3_body(**changes: object) -> str:
    return json.dumps({"Records": [s3_record(**changes)]})


def sns_body(message: str) -> str:
    return json.dumps({"Type": "Notification", "Message": message})


def in_minio_listener(key: str) -> str:
    return s3_body(eventSource="minio:s3", s3__object__key=key)


def in_ceph(key: str) -> str:
    return s3_body(eventSource="ceph:s3", s3__object__key=key)


def in_eventbridge(key: str) -> str:
    detail = {"bucket": {"name": "b"}, "object": {"key": key}}
    return json.dumps({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def in_r2(key: str) -> str:
    return json.dumps({"action": "PutObject", "bucket": "b", "object": {"key": key}})


def in_unknown_vendor(key: str) -> str:
    return s3_body(eventSource="acme:s3", s3__object__key=key)


LITERAL_SHAPES = (in_minio_listener, in_ceph, in_eventbridge, in_r2, in_unknown_vendor)


def reason_of(body: Any) -> str:
    with pytest.raises(PoisonMessage) as caught:
        parse_message(body)
    return caught.value.reason


def candidates_of(body: str) -> tuple[str, ...]:
    (change,) = parse_message(body).changes
    return change.candidates


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


SAMPLES: dict[str, tuple[ChangedKey, ...]] = {
    "s3_put": (named("orders-eu", AWKWARD),),
    "s3_put_slash_encoded": (named("orders-eu", "2025/03/14/09:26-topic.dat"),),
    "s3_complete_multipart": (named("orders-eu", "backup/日本/📦.tar", event="ObjectCreated:CompleteMultipartUpload"),),
    "s3_delete": (named("orders-eu", "a+b.txt", event="ObjectRemoved:Delete"),),
    "s3_delete_marker": (named("orders-eu", "a b.txt", event="ObjectRemoved:DeleteMarkerCreated"),),
    "s3_lifecycle_expiration": (
        named(
            "orders-eu",
            "logs/2024/old.log",
            event="LifecycleExpiration:Delete",
            time=datetime(2025, 3, 15, tzinfo=UTC),
        ),
    ),
    "s3_lifecycle_delete_marker": (
        named(
            "orders-eu",
            "logs/2024/old.log",
            event="LifecycleExpiration:DeleteMarkerCreated",
            time=datetime(2025, 3, 15, tzinfo=UTC),
        ),
    ),
    "s3_lifecycle_transition": (
        named("orders-eu", "logs/2024/cold.log", event="LifecycleTransition", time=datetime(2025, 3, 15, tzinfo=UTC)),
    ),
    "s3_intelligent_tiering": (
        named(
            "orders-eu", "tiered/rarely read.bin", event="IntelligentTiering", time=datetime(2025, 3, 15, tzinfo=UTC)
        ),
    ),
    "s3_tagging": (named("orders-eu", "tagged/file.txt", event="ObjectTagging:Put"),),
    "s3_acl": (named("orders-eu", "public/logo.svg", event="ObjectAcl:Put"),),
    "s3_restore_completed": (named("orders-eu", "archive/1999.zip", event="ObjectRestore:Completed"),),
    "s3_two_records": (
        named("orders-eu", "first.txt"),
        named("orders-eu", "second one.txt", event="ObjectRemoved:Delete"),
    ),
    "sns_s3": (named("orders-eu", AWKWARD),),
    "sns_eventbridge": (named("orders-eu", "plain key.txt", event="Object Created", time=SECOND),),
    "lambda_sns": (named("orders-eu", "via sns.txt"),),
    "eventbridge_created": (
        named(
            "orders-eu",
            "grün/1+1=2 (100%25) a%2Fb.txt",
            "grün/1 1=2 (100%) a/b.txt",
            event="Object Created",
            time=SECOND,
        ),
    ),
    "eventbridge_created_broken_percent": (
        named("orders-eu", "sale 100%FF off.txt", event="Object Created", time=SECOND),
    ),
    "eventbridge_deleted": (named("orders-eu", "IMG 0042.jpg", event="Object Deleted", time=SECOND),),
    "eventbridge_lifecycle_expiration": (
        named(
            "orders-eu",
            "logs/2024/old.log",
            event="Object Deleted",
            time=datetime(2025, 3, 15, 8, tzinfo=UTC),
        ),
    ),
    "eventbridge_tags_added": (named("orders-eu", "tagged/file.txt", event="Object Tags Added", time=SECOND),),
    "eventbridge_tags_deleted": (named("orders-eu", "tagged/file.txt", event="Object Tags Deleted", time=SECOND),),
    "eventbridge_acl_updated": (named("orders-eu", "public/logo.svg", event="Object ACL Updated", time=SECOND),),
    "eventbridge_restore_completed": (
        named("orders-eu", "archive/1999.zip", event="Object Restore Completed", time=SECOND),
    ),
    "eventbridge_restore_expired": (
        named("orders-eu", "archive/1999.zip", event="Object Restore Expired", time=SECOND),
    ),
    "eventbridge_access_tier_changed": (
        named("orders-eu", "tiered/rarely read.bin", event="Object Access Tier Changed", time=SECOND),
    ),
    "eventbridge_storage_class_changed": (
        named("orders-eu", "logs/2024/cold.log", event="Object Storage Class Changed", time=SECOND),
    ),
    "minio_webhook_put": (named("photos", "2025%2Fsea+%26+sky%2Bsun+100%25.jpg", "2025/sea & sky+sun 100%.jpg"),),
    "minio_webhook_tagging": (named("photos", "plain.jpg", event="ObjectCreated:PutTagging"),),
    "minio_webhook_delete": (named("photos", "a+b", "a b", event="ObjectRemoved:Delete"),),
    "minio_webhook_expiration": (
        named("photos", "old%2F%C3%A9.jpg", "old/é.jpg", event="LifecycleDelMarkerExpiration:Delete"),
    ),
    "minio_listen_put": (named("photos", "2025/1+1=2 100%25.jpg", "2025/1 1=2 100%.jpg"),),
    "minio_listen_put_and_read": (named("photos", "written.jpg"),),
    "rgw_http_put": (named("science", "2026/ä + 50% #1.txt", "2026/ä   50% #1.txt", time=MICROSECOND),),
    "ceph_put": (named("science", "runs/2025/ä + 50% #1.h5", "runs/2025/ä   50% #1.h5", time=MICROSECOND),),
    "ceph_put_encoded_looking": (
        named("science", "runs/a%20b%2Fc", "runs/a b/c", event="ObjectCreated:Copy", time=MICROSECOND),
    ),
    "ceph_initiate_multipart": (named("science", "runs/big.h5", event="ObjectCreated:Post", time=MICROSECOND),),
    "ceph_lifecycle": (named("science", "runs/old.h5", event="ObjectLifecycle:Expiration:Current", time=MICROSECOND),),
    "r2_put": (named("assets", "img/50% off+more.png", "img/50% off more.png", event="PutObject"),),
    "r2_copy": (named("assets", "img/copy.png", event="CopyObject"),),
    "r2_delete": (named("assets", "img/gone.png", event="DeleteObject"),),
    "r2_complete_multipart": (named("assets", "video/big one.mp4", event="CompleteMultipartUpload"),),
    "r2_lifecycle_deletion": (named("assets", "tmp/expired.png", event="LifecycleDeletion"),),
    "unknown_vendor_put": (named("photos", "docs%2Fa+b.txt", "docs/a b.txt"),),
    "nameless_vendor_put": (named("photos", "docs/plain.txt", time=None),),
}

IGNORED = {
    "s3_test_event": "s3:TestEvent",
    "sns_s3_test_event": "s3:TestEvent",
    "minio_webhook_accessed": "'ObjectAccessed:Get' is not a change of an object",
    "minio_listen_bucket_created": "'BucketCreated:*' is not a change of an object",
}

POISON_SAMPLES = {
    "dynamodb_stream": "record 0: eventSource is 'aws:dynamodb', not a bucket",
    "sqs_batch": "record 0: eventSource is 'aws:sqs', not a bucket",
    "sqs_batch_set_aside": "record 0: eventSource is 'aws:sqs', not a bucket",
    "sns_subscription_confirmation": ("an SNS message of type 'SubscriptionConfirmation', not a notification"),
    "eventbridge_other_service": "source is 'aws.ec2', not aws.s3",
    "eventbridge_scheduled": "source is 'aws.events', not aws.s3",
    "eventbridge_cloudtrail": "detail.object.key is missing",
    **dict.fromkeys(
        (
            "batch_operations_1_0",
            "batch_operations_1_0_old_arn",
            "batch_operations_2_0",
            "batch_operations_2_0_two_tasks",
        ),
        "no known shape of notification, its fields are 'invocationSchemaVersion, invocationId, job, tasks'",
    ),
}


class TestSamples:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_a_sample_names_its_keys(self, name: str) -> None:
        assert parse_message(text_of(name)) == Notification(SAMPLES[name])

    @pytest.mark.parametrize("name", SAMPLES)
    def test_a_sample_reads_the_same_as_text_bytes_and_mapping(self, name: str) -> None:
        text = text_of(name)
        expected = parse_message(text)
        assert parse_message(text.encode()) == expected
        assert parse_message(MappingProxyType(json.loads(text))) == expected

    @pytest.mark.parametrize("name", SAMPLES)
    def test_a_sample_in_an_sns_envelope_names_the_same_keys(self, name: str) -> None:
        assert parse_message(sns_body(text_of(name))) == Notification(SAMPLES[name])

    @pytest.mark.parametrize("name", IGNORED)
    def test_a_sample_that_names_no_key_is_ignored_with_the_reason(self, name: str) -> None:
        assert parse_message(text_of(name)) == Notification((), ignored=IGNORED[name])

    @pytest.mark.parametrize("name", POISON_SAMPLES)
    def test_a_sample_of_something_else_is_poison(self, name: str) -> None:
        assert reason_of(text_of(name)) == POISON_SAMPLES[name]

    def test_every_sample_is_in_a_table(self) -> None:
        assert {path.stem for path in EVENTS.glob("*.json")} == {*SAMPLES, *IGNORED, *POISON_SAMPLES}


class TestLevelTriggered:
    def test_sizes_etags_versions_and_sequencers_are_not_even_looked_at(self) -> None:
        nonsense = {"key": "k", "size": [], "eTag": 7, "versionId": {}, "sequencer": None}
        assert parse_message(s3_body(s3__object=nonsense)) == parse_message(s3_body())

    def test_a_multipart_upload_that_is_only_begun_names_its_key_like_any_other(self) -> None:
        (change,) = parse_message(text_of("ceph_initiate_multipart")).changes
        assert change.candidates == ("runs/big.h5",)

    @pytest.mark.parametrize("told", ["s3:ObjectRemoved:Delete", "ObjectRemoved:Delete"])
    def test_the_event_loses_its_s3_prefix(self, told: str) -> None:
        (change,) = parse_message(s3_body(eventName=told)).changes
        assert change.event == "ObjectRemoved:Delete"

    @pytest.mark.parametrize(
        ("told", "understood"),
        [
            ("2025-03-14T09:26:53.589Z", INSTANT),
            ("2025-03-14T10:26:53.589+01:00", INSTANT),
            ("2025-03-14T09:26:53.589", INSTANT),
            ("2025-03-14T09:26:53.589793123Z", MICROSECOND),
            ("yesterday", None),
            ("", None),
            ("0001-01-01T00:00:00+14:00", None),
            ("\ud800", None),
            (1741944413, None),
            (None, None),
        ],
    )
    def test_a_time_is_utc_or_unknown_and_never_a_reason_to_lose_the_key(
        self, told: object, understood: datetime | None
    ) -> None:
        (change,) = parse_message(s3_body(eventTime=told)).changes
        assert change.time == understood
        assert change.time is None or change.time.tzinfo is UTC

    @pytest.mark.usefixtures("far_from_greenwich")
    def test_a_time_without_a_zone_is_utc_wherever_the_code_runs(self) -> None:
        (change,) = parse_message(s3_body(eventTime="2025-03-14T09:26:53.589")).changes
        assert change.time == INSTANT


class TestSpellings:
    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_where_the_encoding_is_uncertain_the_literal_comes_first_then_the_decoded(
        self, shape: Callable[[str], str]
    ) -> None:
        assert candidates_of(shape("a+b%2Fc")) == ("a+b%2Fc", "a b/c")

    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_a_key_that_decodes_to_itself_is_named_once(self, shape: Callable[[str], str]) -> None:
        assert candidates_of(shape("grün/100%.txt")) == ("grün/100%.txt",)

    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_a_key_that_does_not_decode_to_utf8_is_meant_literally(self, shape: Callable[[str], str]) -> None:
        assert candidates_of(shape("100%FF+x")) == ("100%FF+x",)

    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_a_literal_too_long_for_a_key_leaves_the_decoded(self, shape: Callable[[str], str]) -> None:
        key = "本" * 341
        assert candidates_of(shape(quote_plus(key))) == (key,)

    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_a_key_too_long_in_every_spelling_is_poison(self, shape: Callable[[str], str]) -> None:
        reason = reason_of(shape("x" * 1025))
        assert reason.endswith("is over 1024 bytes")
        assert "key: " in reason

    @pytest.mark.parametrize("shape", LITERAL_SHAPES)
    def test_a_key_is_measured_in_bytes_of_utf8(self, shape: Callable[[str], str]) -> None:
        assert candidates_of(shape("é" * 512)) == ("é" * 512,)
        assert reason_of(shape("é" * 513)).endswith("is over 1024 bytes")

    def test_aws_always_encodes_so_the_literal_is_not_meant(self) -> None:
        assert candidates_of(s3_body(s3__object__key="a+b%2Bc")) == ("a b+c",)

    def test_an_aws_key_that_does_not_decode_to_utf8_is_poison(self) -> None:
        reason = reason_of(s3_body(s3__object__key="caf%E9"))
        assert reason == "record 0: s3.object.key: the key 'caf%E9' does not decode to UTF-8"

    def test_an_aws_key_is_measured_after_decoding(self) -> None:
        assert candidates_of(s3_body(s3__object__key="%41" * 1024)) == ("A" * 1024,)
        assert reason_of(s3_body(s3__object__key="%41" * 1025)).endswith("is over 1024 bytes")


class TestReads:
    """A read of the source must not make us read the source again: that would go on for ever."""

    def test_a_message_of_reads_only_is_ignored(self) -> None:
        notification = parse_message(s3_body(eventName="s3:ObjectAccessed:Head"))
        assert notification.changes == ()
        assert notification.ignored == "'ObjectAccessed:Head' is not a change of an object"

    def test_a_message_that_names_any_key_is_not_ignored(self) -> None:
        records = [s3_record(eventName="ObjectAccessed:Get"), s3_record()]
        assert parse_message({"Records": records}) == Notification((named("b", "k"),))


NESTED_TOO_DEEPLY = "[" * 200_000

POISON: dict[str, tuple[object, str]] = {
    "no JSON": ("hello", "not JSON: Expecting value at character 0"),
    "no body": ("", "not JSON: Expecting value at character 0"),
    "two documents": ("{}{}", "not JSON: Extra data at character 2"),
    "bytes that are no text": (b"\xff\xfe\xfd", "not JSON: not Unicode text"),
    "nested too deeply": (NESTED_TOO_DEEPLY, "not JSON that can be read: nested too deeply"),
    "NaN": ('{"Records": NaN}', "not JSON: a number that cannot be read"),
    "a huge integer": ('{"Records": ' + "9" * 5000 + "}", "not JSON: a number that cannot be read"),
    "a list": ("[]", "not an object but list"),
    "a number": ("7", "not an object but int"),
    "null": ("null", "not an object but NoneType"),
    "no text at all": (None, "not an object but NoneType"),
    "no fields": ("{}", "no known shape of notification, its fields are ''"),
    "unknown fields": ('{"a": 1, "b": 2}', "no known shape of notification, its fields are 'a, b'"),
    "no records": ('{"Records": []}', "Records is empty"),
    "null records": ('{"Records": null}', "Records is not a list but NoneType"),
    "a record that is no object": ('{"Records": [7]}', "record 0: not an object but int"),
    "an empty record": ('{"Records": [{}]}', "record 0: eventName is missing"),
    "no key": (s3_body(s3__object={}), "record 0: s3.object.key is missing"),
    "null key": (s3_body(s3__object__key=None), "record 0: s3.object.key is missing"),
    "empty key": (s3_body(s3__object__key=""), "record 0: s3.object.key is empty"),
    "key of another type": (s3_body(s3__object__key=7), "record 0: s3.object.key is not text but int"),
    "key with a lone surrogate": (
        s3_body(s3__object__key="a\udc80"),
        "record 0: s3.object.key has a lone surrogate, which is no character",
    ),
    "no bucket": (s3_body(s3__bucket="b"), "record 0: s3.bucket.name is missing"),
    "bucket of another type": (s3_body(s3__bucket__name=[]), "record 0: s3.bucket.name is not text but list"),
    "no s3": (s3_body(s3=7), "record 0: s3.object.key is missing"),
    "source of another type": (s3_body(eventSource=7), "record 0: eventSource is not text but int"),
    "event of another type": (s3_body(eventName=7), "record 0: eventName is not text but int"),
    "SNS without message": ('{"Type": "Notification"}', "Message is missing"),
    "SNS with plain text": (sns_body("hi"), "Message: not JSON: Expecting value at character 0"),
    "SNS with a bad record": (
        sns_body(s3_body(s3__object={})),
        "Message: record 0: s3.object.key is missing",
    ),
    "SNS event of Lambda without message": (
        {"Records": [{"Sns": {}}]},
        "record 0: Sns.Message is missing",
    ),
    "EventBridge without detail": (
        '{"source": "aws.s3", "detail-type": "Object Created"}',
        "detail.object.key is missing",
    ),
    "EventBridge without source": ('{"detail-type": "Object Created"}', "source is missing"),
    "R2 without key": ('{"action": "PutObject", "bucket": "b"}', "object.key is missing"),
    "R2 without bucket": ('{"action": "PutObject", "object": {"key": "k"}}', "bucket is missing"),
}


class TestPoison:
    @pytest.mark.parametrize("name", POISON)
    def test_the_reason_says_what_is_wrong_and_where(self, name: str) -> None:
        body, reason = POISON[name]
        assert reason_of(body) == reason

    def test_one_bad_record_makes_the_message_poison_and_is_named_by_its_index(self) -> None:
        records = [s3_record(), s3_record(), s3_record(s3__object={}), s3_record()]
        assert reason_of({"Records": records}) == "record 2: s3.object.key is missing"

    def test_four_documents_inside_each_other_are_read_and_five_are_poison(self) -> None:
        four = sns_body(sns_body(sns_body(s3_body())))
        assert parse_message(four) == Notification((named("b", "k"),))
        expected = "Message: Message: Message: Message: more than 4 envelopes inside each other"
        assert reason_of(sns_body(four)) == expected

    def test_the_sns_event_of_lambda_counts_as_an_envelope(self) -> None:
        four = {"Records": [{"Sns": {"Message": sns_body(sns_body(s3_body()))}}]}
        assert parse_message(four) == Notification((named("b", "k"),))
        five = {"Records": [{"Sns": {"Message": sns_body(sns_body(sns_body(s3_body())))}}]}
        expected = "record 0: Sns.Message: Message: Message: Message: more than 4 envelopes inside each other"
        assert reason_of(five) == expected

    def test_the_reason_is_one_short_line_however_large_the_message(self) -> None:
        long = "secret\n" * 5000
        for body in (
            s3_body(eventSource="aws:" + long),
            s3_body(s3__object__key=long),
            s3_body(s3__object__key="%FF" + long),
            json.dumps({"Type": long}),
            json.dumps({"detail-type": "x", "source": long}),
            json.dumps({long: 1, f"2{long}": 2}),
            long,
        ):
            reason = reason_of(body)
            assert "\n" not in reason
            assert len(reason) < 200


class TestBatch:
    BATCH = json.loads(text_of("sqs_batch"))

    def changed(self, **fields: object) -> dict[str, Any]:
        return {"Records": [self.BATCH["Records"][0], {**self.BATCH["Records"][1], **fields}]}

    def reason_of_batch(self, event: Any) -> str:
        with pytest.raises(PoisonMessage) as caught:
            messages_of(event)
        return caught.value.reason

    def test_a_batch_is_split_into_its_messages(self) -> None:
        messages = messages_of(self.BATCH)
        assert [message.receive_count for message in messages] == [1, 2, 1, 1, 1, 14]
        assert messages[1].message_id == "059f36b4-87a3-44ab-83d2-661975110002"
        assert messages[1].receipt_handle == "AQEBExampleReceiptHandle2=="
        assert messages[1].queue_arn == "arn:aws:sqs:eu-central-1:111122223333:bucket-changes"

    def test_every_shape_is_read_inside_a_batch(self) -> None:
        *good, bad = messages_of(self.BATCH)
        assert [[change.candidates for change in parse_message(message.body).changes] for message in good] == [
            [(AWKWARD,)],
            [(AWKWARD,)],
            [("a b.txt",)],
            [("a b.txt",)],
            [],
        ]
        assert reason_of(bad.body).startswith("not JSON")

    def test_a_message_that_was_set_aside_says_why_and_one_that_was_not_says_nothing(self) -> None:
        messages = messages_of(json.loads(text_of("sqs_batch_set_aside")))
        assert [message.reason for message in messages] == [
            "PutObject orders-copy/a b.txt: AccessDenied: Access Denied",
            "",
        ]

    def test_a_message_tells_when_it_was_sent_in_seconds(self) -> None:
        messages = messages_of(json.loads(text_of("sqs_batch_set_aside")))
        assert [message.sent for message in messages] == [1741944414.321, 1741944414.0]

    @pytest.mark.parametrize("told", [None, "", "soon", "-1", "1.5", "1" * 16, "\ud800", 1741944414321, [], {}])
    def test_a_time_that_cannot_be_read_is_unknown_and_does_not_lose_the_message(self, told: object) -> None:
        message = messages_of(
            self.changed(body="b", attributes={"ApproximateReceiveCount": "1", "SentTimestamp": told})
        )[1]
        assert (message.body, message.sent) == ("b", None)

    @pytest.mark.parametrize(
        "told",
        [
            None,
            [],
            {},
            {"Reason": None},
            {"Reason": "x"},
            {"Reason": {}},
            {"Reason": {"stringValue": 7}},
            {"Other": {}},
        ],
    )
    def test_a_reason_that_cannot_be_read_is_none_and_does_not_lose_the_message(self, told: object) -> None:
        message = messages_of(self.changed(body="b", messageAttributes=told))[1]
        assert (message.body, message.reason) == ("b", "")

    def test_a_message_of_a_sender_without_attributes_has_no_reason_and_no_time(self) -> None:
        first = {name: value for name, value in self.BATCH["Records"][0].items() if name != "messageAttributes"}
        (message,) = messages_of({"Records": [{**first, "attributes": {"ApproximateReceiveCount": "1"}}]})
        assert (message.reason, message.sent) == ("", None)

    def test_a_body_that_is_poison_or_empty_does_not_spoil_the_batch(self) -> None:
        assert [message.body for message in messages_of(self.changed(body=""))][1] == ""

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"eventSource": "aws:s3"}, "record 1: eventSource is 'aws:s3', not aws:sqs"),
            ({"eventSource": None}, "record 1: eventSource is missing"),
            ({"body": None}, "record 1: body is missing or not text"),
            ({"messageId": 7}, "record 1: messageId is not text but int"),
            ({"receiptHandle": ""}, "record 1: receiptHandle is empty"),
            ({"eventSourceARN": None}, "record 1: eventSourceARN is missing"),
            ({"attributes": []}, "record 1: attributes.ApproximateReceiveCount is missing"),
            (
                {"attributes": {"ApproximateReceiveCount": "-1"}},
                "record 1: attributes.ApproximateReceiveCount is '-1', not a count",
            ),
            (
                {"attributes": {"ApproximateReceiveCount": "1" * 10}},
                "record 1: attributes.ApproximateReceiveCount is '1111111111', not a count",
            ),
        ],
    )
    def test_a_record_that_is_no_queue_message_is_poison(self, fields: dict[str, Any], reason: str) -> None:
        assert self.reason_of_batch(self.changed(**fields)) == reason

    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ({}, "Records is not a list but NoneType"),
            ({"Records": []}, "Records is empty"),
            ({"Records": ["x"]}, "record 0: not an object but str"),
            ([], "not an SQS batch but list"),
        ],
    )
    def test_an_event_that_is_no_batch_is_poison(self, event: object, reason: str) -> None:
        assert self.reason_of_batch(event) == reason


# Anything JSON can say; and documents made of the names this module looks for, which get further into it.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
NAMES = """
Records Type Notification Message Sns Event s3:TestEvent detail-type source aws.s3 detail action eventSource
aws:s3 minio:s3 aws:sqs eventName ObjectAccessed:Get eventTime s3 bucket name object key a%FF a+b body
attributes ApproximateReceiveCount messageId SentTimestamp messageAttributes Reason stringValue
"""
WORDS = st.sampled_from(NAMES.split())
ANY_JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=24,
)


def is_key(text: str) -> bool:
    return 0 < len(text.encode()) <= 1024


KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).filter(is_key) | st.text(
    "aé/ +%2Ff&.", min_size=1, max_size=60
)


class TestProperties:
    @given(ANY_JSON)
    def test_any_json_value_is_read_or_poison(self, value: Any) -> None:
        text = json.dumps(value)
        for body in (value, text, text.encode(), json.dumps(value, ensure_ascii=False), sns_body(text)):
            self.is_read_or_poison(parse_message, body)

    @given(ANY_JSON)
    def test_any_value_is_a_batch_or_poison(self, value: Any) -> None:
        self.is_read_or_poison(messages_of, value)
        self.is_read_or_poison(messages_of, {"Records": [value]})

    @given(ANY_JSON, ANY_JSON, ANY_JSON)
    def test_whatever_only_explains_a_message_never_makes_it_poison(
        self, attributes: Any, reason: Any, sent: Any
    ) -> None:
        record = TestBatch.BATCH["Records"][0]
        counted = {"ApproximateReceiveCount": "1", "SentTimestamp": sent}
        for told in (attributes, {"Reason": reason}, {"Reason": {"stringValue": reason}}):
            (message,) = messages_of({"Records": [{**record, "attributes": counted, "messageAttributes": told}]})
            assert message.body == record["body"]

    @given(st.text() | st.binary())
    def test_any_text_or_bytes_are_read_or_poison(self, body: str | bytes) -> None:
        self.is_read_or_poison(parse_message, body)

    @given(st.dictionaries(st.sampled_from(sorted(s3_record())), ANY_JSON))
    def test_a_record_with_any_wrong_fields_is_read_or_poison(self, fields: Mapping[str, Any]) -> None:
        self.is_read_or_poison(parse_message, {"Records": [{**s3_record(), **fields}]})

    @given(KEYS)
    @example("a+b c%2Fd%")
    @example("//../.")
    def test_a_key_as_aws_encodes_it_is_exactly_that_key(self, key: str) -> None:
        for told in (quote_plus(key, safe="/"), quote_plus(key)):
            assert candidates_of(s3_body(s3__object__key=told)) == (key,)

    @given(KEYS, st.sampled_from(LITERAL_SHAPES))
    def test_a_key_told_plainly_is_the_first_candidate(self, key: str, shape: Callable[[str], str]) -> None:
        assert candidates_of(shape(key))[0] == key

    @given(KEYS, st.sampled_from(LITERAL_SHAPES), st.sampled_from([quote, quote_plus]))
    def test_a_key_told_encoded_is_among_the_candidates(
        self, key: str, shape: Callable[[str], str], encode: Callable[[str], str]
    ) -> None:
        assert key in candidates_of(shape(encode(key)))

    @given(KEYS, st.sampled_from(LITERAL_SHAPES))
    def test_candidates_are_legal_keys_without_duplicates(self, key: str, shape: Callable[[str], str]) -> None:
        candidates = candidates_of(shape(quote_plus(key)))
        assert all(is_key(candidate) for candidate in candidates)
        assert len(set(candidates)) == len(candidates)

    @given(st.text(st.characters(codec="utf-8", exclude_characters="%"), min_size=1, max_size=80))
    def test_an_illegal_key_is_never_named(self, part: str) -> None:
        for shape in LITERAL_SHAPES:
            assert "is over 1024 bytes" in reason_of(shape(part * 1025))

    @staticmethod
    def is_read_or_poison(read: Callable[[Any], object], body: object) -> None:
        try:
            read(body)
        except PoisonMessage as poison:
            reason = poison.reason
        else:
            return
        assert reason
        assert "\n" not in reason


def test_what_an_event_says_of_the_object_is_kept_as_a_hint():
    (put,) = parse_message(text_of("s3_put")).changes
    assert (put.size, put.etag) == (2048, "0cc175b9c0f1b6a831c399e269772661")
    (gone,) = parse_message(text_of("s3_delete")).changes
    assert gone.size is None


@pytest.mark.parametrize("told", [-1, True, "12", 1.5, None, [], {}])
def test_a_hint_that_is_none_is_no_reason_to_lose_a_change(told):
    document = json.loads(text_of("s3_put"))
    document["Records"][0]["s3"]["object"] |= {"size": told, "eTag": told}
    (change,) = parse_message(json.dumps(document)).changes
    assert change.size is None
    assert change.etag in ("", told)
