"""Messages of SNS: what is signed is believed, from whom it has to come, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from replicator.errors import ConfigurationError, PoisonMessage
from replicator.web.fetching import NotFetched
from replicator.web.sns import (
    TOO_OLD,
    TOO_YOUNG,
    BadCertificate,
    Kind,
    NotFromSns,
    is_envelope,
    parse_topics,
    read_envelope,
    signed_text,
)
from replicator.web.topics import CERTIFICATES, Topics
from tests.fakes.sns import CERTIFICATE, HOST, NOW, TOPIC, Sns, certificate, message

ROOT = Path(__file__).parents[2]

# What is believed


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("kind", ["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"])
async def test_what_sns_has_signed_is_believed(kind, version):
    envelope = await Sns().topics().proved(message(kind, version))
    assert (envelope.kind, envelope.topic) == (Kind(kind), TOPIC)


@pytest.mark.parametrize(
    "changes", [{"Subject": "Amazon S3 Notification"}, {"Subject": None}, {"Message": "ü\n\\n \U0001f600"}]
)
async def test_a_subject_is_signed_if_there_is_one_and_characters_are_signed_as_they_are(changes):
    envelope = await Sns().topics().proved(json.loads(json.dumps(message(**changes))))
    assert envelope.message == message(**changes)["Message"]


async def test_a_subject_of_null_is_none():
    assert (await Sns().topics().proved({**message(), "Subject": None})).subject is None


def test_the_text_that_is_signed_is_names_and_values_in_order():
    assert signed_text(read_envelope(message(Subject="hello"))) == (
        'Message\n{"Event":"s3:TestEvent"}\nMessageId\n3f1c0f4e-0000-5000-9000-6b2f7a8c9d10\nSubject\nhello\n'
        f"Timestamp\n2025-03-14T09:26:54.321Z\nTopicArn\n{TOPIC}\nType\nNotification\n"
    )


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("Notification", "Message", '{"Event":"s3:TestEvent"} '),
        ("Notification", "MessageId", "x"),
        ("Notification", "Subject", "x"),
        ("Notification", "Timestamp", "2025-03-14T09:26:54.322Z"),
        ("SubscriptionConfirmation", "Message", "x"),
        ("SubscriptionConfirmation", "Timestamp", "2025-03-14T09:26:54.322Z"),
        ("SubscriptionConfirmation", "Token", "x"),
        ("SubscriptionConfirmation", "SubscribeURL", f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=x"),
        ("SubscriptionConfirmation", "Type", "UnsubscribeConfirmation"),
        ("SubscriptionConfirmation", "Type", "Notification"),
    ],
)
async def test_a_field_that_was_changed_after_it_was_signed_is_not_believed(kind, name, value):
    with pytest.raises(NotFromSns, match="Signature is not of this message"):
        await Sns().topics().proved({**message(kind), name: value})


async def test_a_signature_of_somebody_else_is_not_believed():
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    sns = Sns(**{CERTIFICATE: certificate(key=other)})
    with pytest.raises(NotFromSns, match="Signature is not of this message"):
        await sns.topics().proved(message())


@pytest.mark.parametrize("version", ["0", "3", "SHA256"])
async def test_a_version_of_signatures_that_is_unknown_is_not_believed(version):
    with pytest.raises(NotFromSns, match="SignatureVersion"):
        await Sns().topics().proved(message(version=version))


async def test_a_signature_of_the_other_version_is_not_believed():
    with pytest.raises(NotFromSns, match="Signature"):
        await Sns().topics().proved({**message(version="2"), "SignatureVersion": "1"})


@pytest.mark.parametrize(
    "changes",
    [
        {"Type": "Other"},
        {"Type": 5},
        {"Signature": "not base64!"},
        {"Signature": None},
        {"Message": None},
        {"Message": {}},
        {"TopicArn": [TOPIC]},
        {"MessageId": "\udc00"},
        {"Timestamp": ""},
        {"SigningCertURL": None},
    ],
)
def test_what_lacks_a_field_of_an_envelope_is_poison_in_one_line(changes):
    with pytest.raises(PoisonMessage) as raised:
        read_envelope({**message(), **changes})
    assert "\n" not in raised.value.reason


@pytest.mark.parametrize("name", ["Token", "SubscribeURL"])
def test_a_confirmation_without_what_confirms_is_poison(name):
    with pytest.raises(PoisonMessage, match=name):
        read_envelope({**message("SubscriptionConfirmation"), name: None})


def test_records_are_never_read_from_beside_what_is_signed():
    assert is_envelope(message())
    assert not is_envelope({**message(), "Records": []})


# From whom and when


@pytest.mark.parametrize(
    "topic",
    [
        TOPIC + "2",
        TOPIC.replace("1111", "2222"),
        TOPIC.replace("eu-central-1", "eu-central-2"),
        "arn:aws:sns:evil.example/:111122223333:bucket-changes",
        "",
    ],
)
async def test_a_topic_that_is_not_allowed_is_refused_before_anything_is_fetched(topic):
    sns = Sns()
    with pytest.raises((NotFromSns, PoisonMessage), match="TopicArn"):
        await sns.topics().proved(message(TopicArn=topic))
    assert sns.asked == []


BAD_PLACES = [
    "http://sns.eu-central-1.amazonaws.com/a.pem",
    "https://sns.eu-central-2.amazonaws.com/a.pem",
    "https://sns.eu-central-1.amazonaws.com.evil.example/a.pem",
    "https://sns.eu-central-1.amazonaws.com@evil.example/a.pem",
    "https://sns.eu-central-1.amazonaws.com:8443/a.pem",
    "https://evil.example/sns.eu-central-1.amazonaws.com/a.pem",
    "https://evil.example#https://sns.eu-central-1.amazonaws.com/a.pem",
    "https://snsXeu-central-1.amazonaws.com/a.pem",
    "https://sns.eu-central-1.amazonaws.com\\@evil.example/a.pem",
    "https://sns.eu-central-1.amazonaws.com.cn/a.pem",
    "https://bucket.s3.eu-central-1.amazonaws.com/a.pem",
    "https://169.254.169.254/a.pem",
    "file:///etc/a.pem",
]


@pytest.mark.parametrize(
    "url",
    [
        *BAD_PLACES,
        f"{HOST}/a.pem?b",
        f"{HOST}/?Action=x&.pem",
        f"{HOST}/a/../b.pem",
        f"{HOST}/a.pem\n",
        f"{HOST}/a.der",
        f"{HOST}/ü.pem",
        f"{HOST}/" + "a" * 300 + ".pem",
    ],
)
async def test_a_certificate_is_fetched_from_sns_in_the_region_of_the_topic_only(url):
    sns = Sns()
    with pytest.raises(NotFromSns, match="SigningCertURL"):
        await sns.topics().proved(message(SigningCertURL=url))
    assert sns.asked == []


@pytest.mark.parametrize("url", [*BAD_PLACES, f"{HOST}/a?Action=x", f"{HOST}/?a b", f"{HOST}/?a\r\nHost: b", HOST])
async def test_a_confirmation_goes_to_sns_in_the_region_of_the_topic_only(url):
    sns = Sns()
    with pytest.raises(NotFromSns, match="SubscribeURL"):
        await sns.topics().proved(message("SubscriptionConfirmation", SubscribeURL=url))
    assert sns.asked == []


@pytest.mark.parametrize(
    ("topic", "host", "signer"),
    [
        (
            "arn:aws-cn:sns:cn-north-1:111122223333:t",
            "sns.cn-north-1.amazonaws.com.cn",
            "sns-cn-north-1.amazonaws.com.cn",
        ),
        (
            "arn:aws-us-gov:sns:us-gov-east-1:111122223333:t",
            "sns.us-gov-east-1.amazonaws.com",
            "sns-us-gov-west-1.amazonaws.com",
        ),
        (
            "arn:aws:sns:af-south-1:111122223333:t",
            "sns.af-south-1.amazonaws.com",
            "sns-signing.af-south-1.amazonaws.com",
        ),
        (
            "arn:aws-eusc:sns:eusc-de-east-1:111122223333:t",
            "sns.eusc-de-east-1.amazonaws.eu",
            "sns-signing.eusc-de-east-1.amazonaws.eu",
        ),
    ],
)
async def test_other_partitions_have_hosts_and_signers_of_their_own(topic, host, signer):
    url = f"https://{host}/a.pem"
    sns = Sns(**{url: certificate(signer)})
    assert (await sns.topics(topic).proved(message(TopicArn=topic, SigningCertURL=url))).topic == topic


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(0, True), (TOO_OLD, True), (TOO_OLD + 1, False), (-TOO_YOUNG, True), (-TOO_YOUNG - 1, False)],
)
async def test_what_was_sent_long_ago_or_is_to_come_is_not_believed(seconds, good):
    sns = Sns()
    document = message(Timestamp=(NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z"))
    if good:
        await sns.topics().proved(document)
    else:
        with pytest.raises(NotFromSns, match="Timestamp"):
            await sns.topics().proved(document)
        assert sns.asked == []


@pytest.mark.parametrize("text", ["yesterday", "1741944414", "9999-99-99T00:00:00Z"])
async def test_what_is_no_time_is_not_believed(text):
    with pytest.raises(NotFromSns, match="Timestamp is no time"):
        await Sns().topics().proved(message(Timestamp=text))


# The certificate


@pytest.mark.parametrize(
    ("pem", "reason"),
    [
        (b"", "cannot be read"),
        (b"<html>", "cannot be read"),
        (certificate("evil.example"), "not of SNS"),
        (certificate("sns.amazonaws.com.evil.example"), "not of SNS"),
        (certificate("evilsns.amazonaws.com"), "not of SNS"),
        (certificate(key=ec.generate_private_key(ec.SECP256R1())), "no RSA key"),
        (certificate(key=rsa.generate_private_key(public_exponent=65537, key_size=1024)), "no RSA key"),  # noqa: S505
        (certificate(ends=-0.5), "not valid at this time"),
        (certificate(begins=0.5), "not valid at this time"),
        (NotFetched("away"), "away"),
    ],
)
async def test_a_certificate_that_is_not_good_is_asked_for_again_and_proves_nothing(pem, reason):
    sns = Sns(**{CERTIFICATE: pem})
    topics = sns.topics()
    for _ in range(2):
        with pytest.raises((BadCertificate, NotFetched), match=reason):
            await topics.proved(message())
    assert sns.asked == [CERTIFICATE] * 2


async def test_a_certificate_is_fetched_once_also_by_many_at_once():
    sns = Sns()
    topics = sns.topics()
    await asyncio.gather(*(topics.proved(message()) for _ in range(20)))
    assert sns.asked == [CERTIFICATE]


async def test_who_has_a_known_certificate_does_not_wait_while_another_one_is_fetched():
    """Anybody may name one that SNS is slow to say it has not."""
    sns, slow = Sns(), asyncio.Event()

    async def fetch(url):
        if url != CERTIFICATE:
            await slow.wait()
        return await sns.fetch(url)

    topics = Topics(frozenset([TOPIC]), fetch=fetch, clock=lambda: sns.now)
    await topics.proved(message())
    stranger = asyncio.create_task(topics.proved(message(SigningCertURL=f"{HOST}/none.pem")))
    await asyncio.sleep(0)
    genuine = asyncio.create_task(topics.proved(message()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert genuine.done()
    slow.set()
    with pytest.raises(BadCertificate):
        await stranger


async def test_a_certificate_that_has_ended_is_fetched_again():
    sns = Sns()
    topics = sns.topics()
    await topics.proved(message())
    sns.now += 2 * 86400
    sns.answers[CERTIFICATE] = certificate(ends=5)
    await topics.proved(message(Timestamp=datetime.fromtimestamp(sns.now, UTC).isoformat()))
    assert sns.asked == [CERTIFICATE] * 2


async def test_a_few_certificates_are_kept_and_no_more():
    urls = [f"{HOST}/{n}.pem" for n in range(CERTIFICATES + 1)]
    sns = Sns(**{url: certificate() for url in urls})
    topics = sns.topics()
    for url in [*urls, urls[-1], urls[0]]:
        await topics.proved(message(SigningCertURL=url))
    assert sns.asked == [*urls, urls[0]]


# Subscriptions


async def test_a_subscription_is_confirmed_at_its_address():
    sns = Sns()
    topics = sns.topics()
    envelope = await topics.proved(message("SubscriptionConfirmation"))
    assert await topics.settle(envelope) == "SubscriptionConfirmation"
    assert sns.asked == [CERTIFICATE, envelope.subscribe_url]


async def test_a_subscription_that_could_not_be_confirmed_is_an_error():
    document = message("SubscriptionConfirmation")
    sns = Sns(**{document["SubscribeURL"]: NotFetched("away")})
    topics = sns.topics()
    with pytest.raises(NotFetched):
        await topics.settle(await topics.proved(document))


async def test_the_end_of_a_subscription_is_said_and_not_undone(caplog):
    sns = Sns()
    topics = sns.topics()
    await topics.settle(await topics.proved(message("UnsubscribeConfirmation")))
    assert sns.asked == [CERTIFICATE]
    assert f"no longer subscribed to {TOPIC}" in caplog.text
    assert "t0ken" not in caplog.text


def test_what_confirms_is_in_no_repr():
    assert "t0ken" not in repr(read_envelope(message("SubscriptionConfirmation")))


# The setting


def test_topics_are_told_with_commas_or_blanks():
    other = "arn:aws-cn:sns:cn-north-1:111122223333:t"
    assert parse_topics(f" {TOPIC}, {other}\n{TOPIC} ") == {TOPIC, other}
    assert parse_topics("") == frozenset()


@pytest.mark.parametrize(
    "text", ["*", "bucket-changes", TOPIC + ":sub", TOPIC + "/x", "arn:aws:sqs:eu-central-1:111122223333:q"]
)
def test_what_is_no_topic_is_refused_with_its_setting(text):
    with pytest.raises(ConfigurationError, match="SNS_TOPICS: "):
        parse_topics(text)


def test_nobody_pays_for_cryptography_before_a_message_of_sns_comes():
    program = "import replicator.web.webhooks, sys; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr
