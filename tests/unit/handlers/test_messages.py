"""What `send_email` hands to the SMTP server."""

import base64
import quopri
import re
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from goqueue import mailbox
from goqueue.builtin import SEND_EMAIL, SendEmail
from goqueue.errors import InvalidInput, NeverRetry
from goqueue_operator.crds import policy as admission
from goqueue_worker.handlers.message import Message, ascii_address, compose, mailbox_field, message_id, text_field
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.smtp import literal, refusal

NAMES = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
OF_THE_BODY = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]


MADE = 1_700_000_000.000001
"""When a job was made; times of PostgreSQL have microseconds."""


def message(
    subject: str = "Hello", body: str = "World", job_id: int = 7, sender: str = "Shop <s@example.com>"
) -> Message:
    return compose(
        SendEmail(to="ada@example.com", subject=subject, body=body),
        mailbox.sender(sender),
        job_id,
        MADE,
        "an-installation",
    )


def parsed(sent: Message) -> EmailMessage:
    read = message_from_bytes(sent.content, policy=policy.default)
    assert isinstance(read, EmailMessage)
    return read


def header_lines(sent: Message) -> list[tuple[str, str]]:
    """(name, unfolded value) of each header line, by RFC 5322 alone and without any decoding."""
    head = sent.content.decode().partition("\r\n\r\n")[0]
    lines = re.sub(r"\r\n(?=[ \t])", "", head).split("\r\n")
    return [(name, value.removeprefix(" ")) for name, _, value in (line.partition(":") for line in lines)]


def decoded(value: str) -> str:
    """Encoded words as RFC 2047 reads them: blanks between two of them do not count, all else does."""
    text, end = "", 0
    for word in re.finditer(r"=\?utf-8\?([bq])\?([^? ]*)\?=", value):
        between = value[end : word.start()]
        text += between if end == 0 or between.strip() else ""
        raw = word[2].replace("_", " ")
        text += (base64.b64decode(word[2]) if word[1] == "b" else quopri.decodestring(raw)).decode()
        end = word.end()
    return text + value[end:]


ANY_LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), min_size=1, max_size=200)
TRICKY = st.lists(
    st.sampled_from(
        ["=?utf-8?q?", "=?us-ascii?b?", "?=", "=41", "_", "a", " ", "Ж", "日", "🎉", "\u00a0", "\u3000", ":"]
    ),
    min_size=1,
    max_size=80,
).map("".join)
SUBJECTS = [
    "Тест длинного русского письма с очень длинной темой которая не влезает в одну строку заголовка",
    "日本語 " * 30 + "終",
    "🎉 " * 60 + "ende",
    "가장 높은 산, 가장 긴 강 그리고 가장 깊은 바다 이야기를 모두에게 전합니다",
    "Re: [SUP-000001] Bestellung und Lieferung - Anfrage - 20 semaines d’abonnement à 24 heures, Bilan, Tribune",
    "Größe  zwei   Leerzeichen",
    " a blank before and after ",
    "two  blanks",
    "=?utf-8?q?an_encoded_word?=",
    "half =?utf-8?b?RW5kZQ==?= in plain text",
    "plain words " * 60 + "end",
    "a" * 998,
    "ü" * 998,
    "e\u0301" * 300,
]


@given(ANY_LINE | TRICKY)
def test_any_subject_arrives_letter_for_letter_and_adds_no_header_line(subject: str) -> None:
    sent = message(subject=subject)
    lines = header_lines(sent)
    assert [name for name, _ in lines] == NAMES + OF_THE_BODY
    assert decoded(dict(lines)["Subject"]) == subject


@pytest.mark.parametrize("subject", SUBJECTS)
def test_long_and_odd_subjects_arrive_letter_for_letter_and_fit_their_lines(subject: str) -> None:
    sent = message(subject=subject)
    assert decoded(dict(header_lines(sent))["Subject"]) == subject
    assert str(parsed(sent)["Subject"]) == subject
    head = sent.content.partition(b"\r\n\r\n")[0]
    assert head.isascii()
    assert max(map(len, head.split(b"\r\n"))) <= 78
    assert re.search(rb"\n[ \t]*\r\n", head) is None


@given(ANY_LINE | TRICKY)
def test_any_sender_name_arrives_and_adds_no_header_line(name: str) -> None:
    sent = compose(SendEmail(to="ada@example.com", subject="s", body="b"), (name, "s@example.com"), 1, MADE)
    lines = header_lines(sent)
    assert [field for field, _ in lines] == NAMES + OF_THE_BODY
    written = re.fullmatch(r"(.+) <s@example\.com>", dict(lines)["From"])
    assert written is not None
    quoted = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', written[1])
    assert (re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else decoded(written[1])) == name


@pytest.mark.parametrize(
    ("sender", "name", "address"),
    [
        ("shop@example.com", "", "shop@example.com"),
        ("<shop@example.com>", "", "shop@example.com"),
        ("Acme, Inc. <shop@example.com>", "Acme, Inc.", "shop@example.com"),
        ('"Acme, Inc." <shop@example.com>', "Acme, Inc.", "shop@example.com"),
        ('"The \\"best\\" shop" <shop@example.com>', 'The "best" shop', "shop@example.com"),
        ("Müller & Söhne, Köln <shop@example.com>", "Müller & Söhne, Köln", "shop@example.com"),
        ("Shop (EU) <shop@example.com>", "Shop (EU)", "shop@example.com"),
        ("Team: Support <shop@example.com>", "Team: Support", "shop@example.com"),
        ("O'Neil; Co <shop@example.com>", "O'Neil; Co", "shop@example.com"),
        ("A@B <shop@example.com>", "A@B", "shop@example.com"),
        ("Büro <shop@bücher.example>", "Büro", "shop@xn--bcher-kva.example"),
        ("Cron <root@localhost>", "Cron", "root@localhost"),
    ],
)
def test_a_sender_with_any_name_is_read_as_that_name_and_address(sender: str, name: str, address: str) -> None:
    sent = message(sender=sender)
    [read] = parsed(sent)["From"].addresses
    assert (read.display_name, read.addr_spec, sent.sender) == (name, address, address)


@pytest.mark.parametrize("body", ["plain", "Grüße, 世界 🎉", "x" * 5000, ".\n..\nline", "a\r\nb\rc\n", "From me\n"])
def test_any_body_arrives_as_utf8_text_in_ascii_transport(body: str) -> None:
    sent = message(body=body)
    assert sent.content.isascii()
    read = parsed(sent)
    assert read.get_content_charset() == "utf-8"
    assert read.get_content().splitlines() == body.splitlines()


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\0"])
def test_no_line_break_gets_into_a_header(line_break: str) -> None:
    text = f"Hi{line_break}Bcc: everyone@example.com"
    with pytest.raises(ValidationError):
        SendEmail(to="ada@example.com", subject=text, body="x")
    with pytest.raises(ValidationError):
        SendEmail(to=f"ada@example.com{line_break}x", subject="x", body="x")
    for refused in (
        SendEmail.model_construct(to="ada@example.com", subject=text, body="x"),
        SendEmail.model_construct(to=f"ada@example.com{line_break}x", subject="x", body="x"),
    ):
        with pytest.raises(NeverRetry):
            compose(refused, ("", "s@example.com"), 1, MADE)
    payload = SendEmail(to="ada@example.com", subject="x", body="x")
    for sender in ((f"Shop{line_break}x", "s@example.com"), ("Shop", f"s@example.com{line_break}x")):
        with pytest.raises(NeverRetry):
            compose(payload, sender, 1, MADE)


@pytest.mark.parametrize("text", ["a\nb", "a\r\n b", "\ud800"])
def test_no_field_is_written_with_what_is_no_line_of_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"line break|surrogates|usual form|address|@-sign"):
        text_field("X", text)
    with pytest.raises(ValueError, match=r"line break|surrogates|usual form|address|@-sign"):
        mailbox_field("X", text)


@pytest.mark.parametrize(
    "address",
    [
        "ops@corp.local",
        "user@internal",
        "root@localhost",
        "a@host.test",
        "ada@sub_domain.example.org",
        "o'neil@example.com",
        "x+tag@example.org",
        "用户@例子.广告",
    ],
)
def test_an_address_is_checked_by_its_form_only(address: str) -> None:
    SEND_EMAIL.validate({"to": address, "subject": "s", "body": "b"})
    assert re.fullmatch(admission._FORMATS["email"][0], address)  # what the API takes is not refused at `kubectl apply`
    sent = compose(SendEmail(to=address, subject="s", body="b"), ("", "s@example.com"), 1, MADE)
    assert sent.recipient == ascii_address(address)
    assert dict(header_lines(sent))["To"] == sent.recipient


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.com",
        "ada@",
        "ada@a@example.com",
        "ada lovelace@example.com",
        "ada@exam ple.com",
        "ada..b@example.com",
        "ada@-example.com",
        "ada@example..com",
        "ada@example.com.",
        "ada@example.com ",
        "ada,bob@example.com",
        "ada@example.com,bob@example.com",
        "Ada <ada@example.com>",
        "<ada@example.com>",
        '"ada"@example.com',
        "ada@192.0.2.1",
        "ada@[192.0.2.1]",
        "ada@exam(x)ple.com",
        "ada@\u2063.example",
    ],
)
def test_what_has_not_the_form_of_an_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        SEND_EMAIL.validate({"to": address, "subject": "s", "body": "b"})
    assert "\n" not in caught.value.fields["to"]
    with pytest.raises(NeverRetry):
        compose(SendEmail.model_construct(to=address, subject="s", body="b"), ("", "s@example.com"), 1, MADE)


def test_the_message_id_is_the_same_in_each_attempt_and_another_for_each_job_and_installation() -> None:
    """Also for the job that is given the id of one which the database has lost."""
    payload = SendEmail(to="ada@example.com", subject="s", body="b")
    other = SendEmail(to="ada@example.com", subject="s", body="c")
    assert message_id(payload, 1, MADE, "example.com", "i") == message_id(payload, 1, MADE, "example.com", "i")
    ids = {
        message_id(content, job, made, "example.com", place)
        for content in (payload, other)
        for job in (1, 2)
        for made in (MADE, MADE + 1e-6)
        for place in "ij"
    }
    assert len(ids) == 16


def test_a_domain_outside_ascii_is_written_in_idna() -> None:
    assert ascii_address("ada@bücher.example") == "ada@xn--bcher-kva.example"
    assert ascii_address("ada@example.com") == "ada@example.com"
    with pytest.raises(ValueError, match="is no domain"):
        ascii_address("ada@\u2063.example")


@pytest.mark.parametrize(("code", "final"), [(421, False), (450, False), (451, False), (499, False), (550, True)])
def test_smtp_codes_of_5xx_are_final_and_others_are_not(code: int, final: bool) -> None:
    error = refusal("mail:25", code, "because\r\nso", "the message")
    assert type(error) is (NeverRetry if final else TryAgain)
    assert str(error) == f"mail:25 refused the message: {code} because so"


@pytest.mark.parametrize(
    ("address", "said"),
    [("10.0.0.7", "[10.0.0.7]"), ("2001:db8::7", "[IPv6:2001:db8::7]"), ("fe80::7%eth0", "[IPv6:fe80::7]")],
)
def test_a_host_without_a_full_name_says_its_address(address: str, said: str) -> None:
    assert literal(address) == said
