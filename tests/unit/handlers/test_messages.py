"""What `send_email` hands to the SMTP server."""

from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from goqueue.builtin import SendEmail
from goqueue.errors import NeverRetry
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.send_email import ascii_address, compose, message_id, refusal


def message(subject: str = "Hello", body: str = "World", job_id: int = 7) -> EmailMessage:
    payload = SendEmail(to="ada@example.com", subject=subject, body=body)
    return compose(payload, payload.to, "Shop", "shop@example.com", job_id)


def parsed(original: EmailMessage) -> EmailMessage:
    read = message_from_bytes(original.as_bytes(), policy=policy.default)
    assert isinstance(read, EmailMessage)
    return read


SUBJECTS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp", "Cs"]), min_size=1, max_size=200
).filter(lambda text: text.strip() == text and "  " not in text)


@given(SUBJECTS)
def test_any_subject_arrives_as_it_was_written(subject: str) -> None:
    read = parsed(message(subject=subject))
    assert "".join(str(read["Subject"]).split()) == "".join(subject.split())
    assert [name for name, _ in read.items()].count("Subject") == 1


@pytest.mark.parametrize("body", ["plain", "Grüße, 世界 🎉", "x" * 5000, ".\n..\nline", "a\r\nb\rc\n", "From me\n"])
def test_any_body_arrives_as_utf8_text_in_ascii_transport(body: str) -> None:
    sent = message(body=body)
    assert sent.as_bytes().isascii()
    assert sent.get_content_charset() == "utf-8"
    assert parsed(sent).get_content().splitlines() == body.splitlines()


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\0"])
def test_no_line_break_gets_into_a_header(line_break: str) -> None:
    text = f"Hi{line_break}Bcc: everyone@example.com"
    with pytest.raises(ValidationError):
        SendEmail(to="ada@example.com", subject=text, body="x")
    with pytest.raises(ValidationError):
        SendEmail(to=f"ada@example.com{line_break}x", subject="x", body="x")


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_header_with_a_line_break_is_refused_even_past_the_model(line_break: str) -> None:
    payload = SendEmail.model_construct(to="ada@example.com", subject=f"Hi{line_break}Bcc: x@example.com", body="x")
    with pytest.raises(NeverRetry):
        compose(payload, payload.to, "Shop", "shop@example.com", 1)


def test_the_message_id_is_the_same_in_each_attempt_and_another_for_each_job() -> None:
    payload = SendEmail(to="ada@example.com", subject="s", body="b")
    other = SendEmail(to="ada@example.com", subject="s", body="c")
    assert message_id(payload, 1, "example.com") == message_id(payload, 1, "example.com")
    assert len({message_id(p, job, "example.com") for p in (payload, other) for job in (1, 2)}) == 4


def test_a_domain_outside_ascii_is_written_in_idna() -> None:
    assert ascii_address("ada@bücher.example") == "ada@xn--bcher-kva.example"
    assert ascii_address("ada@example.com") == "ada@example.com"
    with pytest.raises(NeverRetry):
        ascii_address("ada@\u2063.example")


@pytest.mark.parametrize(("code", "final"), [(421, False), (450, False), (451, False), (499, False), (550, True)])
def test_smtp_codes_of_5xx_are_final_and_others_are_not(code: int, final: bool) -> None:
    error = refusal("mail:25", code, "because\r\nso", "the message")
    assert type(error) is (NeverRetry if final else TryAgain)
    assert str(error) == f"mail:25 refused the message: {code} because so"
