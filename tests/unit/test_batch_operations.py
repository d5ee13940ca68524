"""Owns the promise of replicator.batch_operations: an invocation of S3 Batch Operations names exactly the keys it may
mean or is poison with a reason, and every end of a task is told to S3 as what it is. Samples lie in tests/events."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicator import errors
from replicator.batch_operations import (
    LONGEST_TEXT,
    Invocation,
    ResultCode,
    Task,
    TaskEnd,
    answer,
    end_of,
    parse_invocation,
)
from replicator.errors import PoisonMessage
from replicator.model import Did, Outcome

EVENTS = Path(__file__).parents[1] / "events"
INVOCATION_ID = "YXNkbGZqYWRmaiBhc2RmdW9hZHNmZGpmaGFzbGtkaGZza2RmaAo"
JOB_ID = "f3cc4f60-61f6-4a2b-8a21-d07600c373ce"
TASK_ID = "dGFza2lkZ29lc2hlcmUK"
DONE = TaskEnd(ResultCode.SUCCEEDED, "copied 1")


def sample(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def invocation(schema: str, *tasks: Task, arguments: Mapping[str, str] | None = None) -> Invocation:
    return Invocation(schema, INVOCATION_ID, JOB_ID, arguments or {}, tasks)


def told(**changes: object) -> dict[str, Any]:
    """A valid invocation of schema 2.0; `changes` replace fields of its only task."""
    task = {"taskId": TASK_ID, "s3Key": "k", "s3VersionId": None, "s3Bucket": "b", **changes}
    return {**sample("batch_operations_2_0"), "tasks": [task]}


def with_arn(arn: str) -> dict[str, Any]:
    task = {"taskId": TASK_ID, "s3Key": "k", "s3VersionId": None, "s3BucketArn": arn}
    return {**sample("batch_operations_1_0"), "tasks": [task]}


def candidates_of(key: str) -> tuple[str, ...]:
    (task,) = parse_invocation(told(s3Key=key)).tasks
    return task.candidates


def reason_of(event: Any) -> str:
    with pytest.raises(PoisonMessage) as caught:
        parse_invocation(event)
    return caught.value.reason


def outcome(did: Did, reason: str = "", *, failure: Exception | None = None, **fields: Any) -> Outcome:
    return Outcome("k", "copies/", did, reason, failure=failure, **fields)


def failed(failure: Exception) -> Outcome:
    return outcome(Did.FAILED, str(failure), failure=failure)


SAMPLES = {
    "batch_operations_1_0": invocation(
        "1.0",
        Task(
            TASK_ID,
            "orders-eu",
            ("reports/red flower + 100% grün/a%2Fb.jpg", "reports/red+flower+++100%+grün/a%2Fb.jpg"),
            "PZ9ibn9D5lP6p298B7S9_ceqx1n5EJ0p",
        ),
    ),
    "batch_operations_1_0_old_arn": invocation("1.0", Task(TASK_ID, "orders-eu", ("customerImage1.jpg",), "1")),
    "batch_operations_2_0": invocation(
        "2.0",
        Task(TASK_ID, "orders-eu", ("2025/object key with spaces.csv", "2025/object+key+with+spaces.csv")),
        arguments={"route": "orders", "ticket": "OPS-17"},
    ),
    "batch_operations_2_0_two_tasks": invocation(
        "2.0",
        Task("Zmlyc3Q", "orders-eu--use1-az4--x-s3", ("2025/03/14/09:26-topic.dat",), "null"),
        Task("c2Vjb25k", "orders-eu--use1-az4--x-s3", ("plain.txt",)),
    ),
}


class TestInvocation:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_a_sample_is_read_as_it_is_documented(self, name: str) -> None:
        assert parse_invocation(sample(name)) == SAMPLES[name]

    def test_every_sample_is_in_the_table(self) -> None:
        assert {path.stem for path in EVENTS.glob("batch_operations_*.json")} == set(SAMPLES)

    def test_an_argument_cannot_be_changed_afterwards(self) -> None:
        event = sample("batch_operations_2_0")
        read = parse_invocation(event)
        event["job"]["userArguments"]["route"] = "another"
        assert read.arguments["route"] == "orders"
        with pytest.raises(TypeError):
            read.arguments["route"] = "another"  # type: ignore[index]

    @pytest.mark.parametrize("version", [None, ""])
    def test_a_manifest_without_versions_names_none(self, version: object) -> None:
        assert parse_invocation(told(s3VersionId=version)).tasks[0].version_id is None

    @pytest.mark.parametrize(
        "arn", ["arn:aws:s3:::b", "arn:aws-cn:s3:::b", "arn:aws-us-gov:s3:::b", "arn:aws:s3:us-east-1:0123456788:b"]
    )
    def test_the_bucket_is_read_from_its_arn_in_every_partition(self, arn: str) -> None:
        assert parse_invocation(with_arn(arn)).tasks[0].bucket == "b"

    @pytest.mark.parametrize(
        "arn",
        [
            "b",
            "arn:aws:s3:::",
            "arn:aws:sqs:::b",
            "arn:aws:s3:::b/k",
            "arn:aws:s3:::b:c",
            "arn:aws:s3:us-west-2:111122223333:accesspoint/photos",
            "arn:aws:s3-object-lambda:us-west-2:111122223333:accesspoint/photos",
        ],
    )
    def test_what_is_not_the_arn_of_a_bucket_is_poison(self, arn: str) -> None:
        assert reason_of(with_arn(arn)) == f"task 0: s3BucketArn is {arn!r}, not the ARN of a bucket"


class TestSpellings:
    @pytest.mark.parametrize(
        ("key", "candidates"),
        [
            ("plain/key.txt", ("plain/key.txt",)),
            ("a%20b", ("a b",)),
            ("a+b", ("a b", "a+b")),
            ("a%2Bb", ("a+b",)),
            ("a%252Fb", ("a%2Fb",)),
            ("gr%C3%BCn%2F100%25", ("grün/100%",)),
            ("grün/100% sicher", ("grün/100% sicher",)),
        ],
    )
    def test_percent_is_always_decoded_and_plus_is_a_space_or_itself(
        self, key: str, candidates: tuple[str, ...]
    ) -> None:
        assert candidates_of(key) == candidates

    def test_a_key_that_does_not_decode_to_utf8_is_poison_and_not_a_guess(self) -> None:
        assert reason_of(told(s3Key="caf%E9")) == "task 0: s3Key: the key 'caf%E9' does not decode to UTF-8"

    def test_a_key_is_measured_after_decoding(self) -> None:
        assert candidates_of("%41" * 1024) == ("A" * 1024,)
        assert reason_of(told(s3Key="%41" * 1025)).endswith("is over 1024 bytes")

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).filter(lambda key: len(key.encode()) < 1025))
    @example("a+b c%2Fd%")
    @example("//../.")
    def test_a_key_is_among_the_candidates_however_it_was_encoded(self, key: str) -> None:
        for encoded in (quote(key), quote(key, safe=""), quote(key, safe="/+"), quote_plus(key)):
            candidates = candidates_of(encoded)
            assert key in candidates
            assert len(set(candidates)) == len(candidates)

    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300).filter(lambda key: len(key.encode()) < 1025))
    def test_a_key_as_it_was_observed_is_the_first_candidate(self, key: str) -> None:
        assert candidates_of(quote_plus(key, safe="/"))[0] == key


POISON: dict[str, tuple[object, str]] = {
    "a list": ([], "not an invocation of S3 Batch Operations but list"),
    "nothing": ({}, "invocationSchemaVersion is missing"),
    "notification": ({"Records": []}, "invocationSchemaVersion is missing"),
    "another schema": (
        {**told(), "invocationSchemaVersion": "3.0"},
        "invocationSchemaVersion is '3.0', not 1.0 or 2.0",
    ),
    "a schema that is a number": (
        {**told(), "invocationSchemaVersion": 2.0},
        "invocationSchemaVersion is not text but float",
    ),
    "no invocation": ({**told(), "invocationId": ""}, "invocationId is empty"),
    "no job": ({**told(), "job": []}, "job.id is missing"),
    "no tasks": ({**told(), "tasks": []}, "tasks is empty"),
    "tasks of another type": ({**told(), "tasks": {}}, "tasks is not a list but dict"),
    "a task that is no object": ({**told(), "tasks": [told()["tasks"][0], 7]}, "task 1: not an object but int"),
    "no task id": (told(taskId=None), "task 0: taskId is missing"),
    "no key": (told(s3Key=None), "task 0: s3Key is missing"),
    "a key with a lone surrogate": (
        told(s3Key="a\udc80"),
        "task 0: s3Key has a lone surrogate, which is no character",
    ),
    "a version of another type": (told(s3VersionId=7), "task 0: s3VersionId is not text but int"),
    "a bucket of another type": (told(s3Bucket=[]), "task 0: s3Bucket is not text but list"),
    "no bucket": (with_arn(""), "task 0: s3BucketArn is empty"),
    "arguments of another type": (
        {**told(), "job": {"id": "j", "userArguments": "route"}},
        "job.userArguments is not an object but str",
    ),
    "an argument of another type": (
        {**told(), "job": {"id": "j", "userArguments": {"route": 7}}},
        "job.userArguments has a value that is not text",
    ),
}


class TestPoison:
    @pytest.mark.parametrize("name", POISON)
    def test_the_reason_says_what_is_wrong_and_where(self, name: str) -> None:
        event, reason = POISON[name]
        assert reason_of(event) == reason

    def test_the_reason_is_one_short_line_however_large_the_invocation(self) -> None:
        long = "secret\n" * 5000
        for event in (
            {**told(), "invocationSchemaVersion": long},
            told(s3Key=long),
            told(s3Key="%FF" + long),
            with_arn(long),
        ):
            assert "\n" not in reason_of(event)
            assert len(reason_of(event)) < 200


class TestAnswer:
    def test_it_repeats_what_was_asked_and_tells_each_end_in_order(self) -> None:
        asked = parse_invocation(sample("batch_operations_2_0_two_tasks"))
        ends = [DONE, TaskEnd(ResultCode.PERMANENT, "copies/: AccessDenied")]
        assert answer(asked, ends) == {
            "invocationSchemaVersion": "2.0",
            "treatMissingKeysAs": "TemporaryFailure",
            "invocationId": INVOCATION_ID,
            "results": [
                {"taskId": "Zmlyc3Q", "resultCode": "Succeeded", "resultString": "copied 1"},
                {"taskId": "c2Vjb25k", "resultCode": "PermanentFailure", "resultString": "copies/: AccessDenied"},
            ],
        }

    @pytest.mark.parametrize("ends", [[], [DONE], [DONE] * 3])
    def test_a_task_is_never_left_without_its_end(self, ends: list[TaskEnd]) -> None:
        with pytest.raises(ValueError, match="zip"):
            answer(parse_invocation(sample("batch_operations_2_0_two_tasks")), ends)

    def test_a_text_is_one_printable_line(self) -> None:
        (result,) = results_of(TaskEnd(ResultCode.TEMPORARY, "no\n\troute \x00 to\u2028host\ud800"))
        assert result["resultString"] == "no route to host"

    def test_a_long_text_keeps_its_beginning_and_its_end(self) -> None:
        (result,) = results_of(TaskEnd(ResultCode.TEMPORARY, f"PutObject {'k' * 2000}: SlowDown"))
        assert len(result["resultString"]) == LONGEST_TEXT
        assert result["resultString"].startswith("PutObject kkk")
        assert result["resultString"].endswith("kkk: SlowDown")
        assert "k ... k" in result["resultString"]

    def test_a_text_of_just_the_length_is_whole(self) -> None:
        (result,) = results_of(TaskEnd(ResultCode.TEMPORARY, "k" * LONGEST_TEXT))
        assert result["resultString"] == "k" * LONGEST_TEXT


def results_of(end: TaskEnd) -> list[dict[str, str]]:
    results: Any = answer(parse_invocation(told()), [end])["results"]
    return list(results)


class TestSucceeded:
    @pytest.mark.parametrize(
        ("outcomes", "text"),
        [
            ([], "nothing to do"),
            ([outcome(Did.COPIED)], "copied 1"),
            (
                [outcome(Did.IN_SYNC, "same"), outcome(Did.COPIED, "not at the target")],
                "copied 1 (not at the target), in sync 1 (same)",
            ),
            ([outcome(Did.IN_SYNC, "same")] * 2, "in sync 2 (same)"),
            (
                [outcome(Did.METADATA, "differs in content_type"), outcome(Did.METADATA, "differs in expires")],
                "metadata updated 2 (differs in content_type, differs in expires)",
            ),
            (
                [outcome(Did.COPIED, not_kept=("tags",)), outcome(Did.COPIED, not_kept=("tags", "expires"))],
                "copied 2; not kept: tags, expires",
            ),
        ],
    )
    def test_the_text_counts_what_was_done_and_says_why(self, outcomes: list[Outcome], text: str) -> None:
        assert end_of(outcomes, None) == TaskEnd(ResultCode.SUCCEEDED, text)

    @pytest.mark.parametrize(
        ("did", "reason", "text"),
        [
            (Did.IN_SYNC, "at neither side", "in sync 1 (at neither side)"),
            (Did.DELETED, "gone at the source", "deleted 1 (gone at the source)"),
            (Did.KEPT, "gone at the source, but deletes are not mirrored", "kept 1 (gone at the source, but"),
            (Did.HELD, "held back by the brake on deletes: gone", "held 1 (held back by the brake on deletes: gone)"),
            (Did.BEGUN, "begun, its parts are copied one by one", "begun 1 (begun, its parts are copied one by one)"),
        ],
    )
    def test_a_key_that_is_gone_held_or_begun_is_no_failure_but_is_told(self, did: Did, reason: str, text: str) -> None:
        end = end_of([outcome(did, reason)])
        assert end.code is ResultCode.SUCCEEDED
        assert end.text.startswith(text)

    @pytest.mark.parametrize("did", [did for did in Did if did not in (Did.FAILED, Did.SKIPPED, Did.DIFFERS)])
    def test_whatever_is_not_a_failure_has_succeeded(self, did: Did) -> None:
        assert end_of([outcome(did)]) == TaskEnd(ResultCode.SUCCEEDED, f"{did.value} 1")


ABOUT = ("PutObject", "copies/k", "the service's words")

MAY_PASS = [
    errors.Transient(*ABOUT),
    errors.Throttled(*ABOUT),
    errors.ChangedMeanwhile(*ABOUT),
    errors.Corrupted(*ABOUT),
    errors.NoSuchKey(*ABOUT),
    errors.NoSuchUpload(*ABOUT),
    errors.SourceKeepsChanging("k changed 8 times while it was copied"),
    errors.TooLargeForNow("k: 5 GiB in one part"),
    errors.QueueError("q: send: ServiceUnavailable"),
    errors.Unreachable("nobody answers at copies"),
    TimeoutError("timed out"),
    RuntimeError("a bug"),
]

FOR_GOOD = [
    errors.AccessDenied(*ABOUT),
    errors.Archived(*ABOUT),
    errors.NoSuchBucket(*ABOUT),
    errors.Rejected(*ABOUT),
    errors.Unsupported(*ABOUT),
    errors.Unproven(*ABOUT),
    errors.UntrustworthyListing(*ABOUT),
    errors.ConfigurationError("TARGET_BUCKET is not set"),
]


def class_of(error: Exception) -> str:
    return type(error).__name__


class TestFailed:
    @pytest.mark.parametrize("failure", MAY_PASS, ids=class_of)
    def test_what_may_pass_is_given_to_the_function_again(self, failure: Exception) -> None:
        assert end_of([failed(failure)]) == TaskEnd(ResultCode.TEMPORARY, f"copies/: {failure}")

    @pytest.mark.parametrize("failure", FOR_GOOD, ids=class_of)
    def test_what_somebody_has_to_mend_is_not_tried_again(self, failure: Exception) -> None:
        assert end_of([failed(failure)]) == TaskEnd(ResultCode.PERMANENT, f"copies/: {failure}")

    def test_every_error_of_a_store_is_in_one_of_the_lists(self) -> None:
        def all_of(kind: type[Exception]) -> set[type[Exception]]:
            return {kind}.union(*(all_of(one) for one in kind.__subclasses__()))

        listed = {type(failure) for failure in (*MAY_PASS, *FOR_GOOD)}
        assert all_of(errors.StoreError) - {errors.StoreError, errors.NotAnObject} <= listed

    def test_what_is_skipped_is_told_as_a_failure_since_it_is_not_at_the_target(self) -> None:
        failure = errors.NotAnObject("HeadObject", "folder/k", "is a link")
        end = end_of([outcome(Did.SKIPPED, str(failure), failure=failure)])
        assert end == TaskEnd(ResultCode.PERMANENT, "copies/: HeadObject folder/k: is a link")

    def test_a_failure_without_its_error_may_pass(self) -> None:
        assert end_of([outcome(Did.FAILED, "why")]) == TaskEnd(ResultCode.TEMPORARY, "copies/: why")

    def test_one_failed_target_is_enough_and_only_failures_are_told(self) -> None:
        end = end_of([outcome(Did.COPIED, "not at the target"), failed(FOR_GOOD[0])])
        assert end == TaskEnd(ResultCode.PERMANENT, "copies/: PutObject copies/k: the service's words")

    @pytest.mark.parametrize("turned", [False, True])
    def test_what_may_pass_at_one_target_is_tried_again_though_another_refuses(self, *, turned: bool) -> None:
        outcomes = [failed(errors.AccessDenied(*ABOUT)), failed(errors.Throttled(*ABOUT))]
        end = end_of(outcomes[::-1] if turned else outcomes)
        assert end.code is ResultCode.TEMPORARY
        assert end.text.count("the service's words") == 2

    def test_an_error_beside_the_outcomes_is_tried_again_and_told_last(self) -> None:
        assert end_of([], "no time left") == TaskEnd(ResultCode.TEMPORARY, "no time left")
        assert end_of([outcome(Did.COPIED)], "no time left") == TaskEnd(ResultCode.TEMPORARY, "no time left")
        end = end_of([failed(errors.AccessDenied(*ABOUT))], "no time left")
        assert end == TaskEnd(ResultCode.TEMPORARY, "copies/: PutObject copies/k: the service's words; no time left")


# Anything JSON can say; and documents made of the names this module looks for, which get further into it.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
NAMES = """
invocationSchemaVersion 1.0 2.0 invocationId job id userArguments tasks taskId s3Key s3VersionId s3Bucket s3BucketArn
arn:aws:s3:::b arn:aws:s3: a%FF a+b%2Fc
"""
WORDS = st.sampled_from(NAMES.split())
ANY_JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=6),
    max_leaves=24,
)


class TestProperties:
    @given(ANY_JSON)
    def test_any_json_value_is_answered_or_poison(self, value: Any) -> None:
        self.is_answered_or_poison(value)
        self.is_answered_or_poison({**told(), "tasks": [value]})
        self.is_answered_or_poison({**told(), "job": value})

    @given(st.dictionaries(st.sampled_from([*told(), "s3BucketArn"]), ANY_JSON))
    def test_an_invocation_with_any_wrong_fields_is_answered_or_poison(self, fields: Mapping[str, Any]) -> None:
        self.is_answered_or_poison({**told(), **fields})

    @given(st.dictionaries(st.sampled_from([*told()["tasks"][0], "s3BucketArn"]), ANY_JSON))
    def test_a_task_with_any_wrong_fields_is_answered_or_poison(self, fields: Mapping[str, Any]) -> None:
        self.is_answered_or_poison(told(**fields))

    @given(st.text(st.characters(codec=None)))
    def test_any_text_of_a_result_is_json_that_s3_can_read(self, text: str) -> None:
        encoded = json.dumps(answer(parse_invocation(told()), [TaskEnd(ResultCode.TEMPORARY, text)]))
        (result,) = json.loads(encoded)["results"]
        assert result["resultString"].encode().decode().isprintable()
        assert len(result["resultString"]) <= LONGEST_TEXT

    @staticmethod
    def is_answered_or_poison(event: Any) -> None:
        try:
            asked = parse_invocation(event)
        except PoisonMessage as poison:
            reason = poison.reason
        else:
            assert asked.tasks
            assert all(task.candidates for task in asked.tasks)
            json.dumps(answer(asked, [DONE for _ in asked.tasks]))
            return
        assert reason
        assert reason.isprintable()
