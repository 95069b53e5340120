"""`send_email` against Mailpit, and against SMTP servers that answer what a test wants."""

import asyncio
import contextlib
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from pydantic import SecretStr

from goqueue.builtin import SendEmail
from goqueue.errors import NeverRetry
from goqueue.settings import EmailSettings
from goqueue_cli.embedded import free_port
from goqueue_cli.keeper import LOOPBACK
from goqueue_worker.handlers.outcome import TryAgain
from goqueue_worker.handlers.send_email import EmailSender
from tests.integration.handlers.conftest import Certificate
from tests.servers.gotools import Mailpit
from tests.servers.tcp import listen
from tests.unit.handlers.context import Context

PASSWORD = "c0rrect-horse"


def letter(**more: str) -> SendEmail:
    return SendEmail(**{"to": "ada@example.com", "subject": "Hello", "body": "World\n", **more})


# --- Mailpit --------------------------------------------------------------------------------------------------------


def ask(mailpit: Mailpit, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"{mailpit.api}{path}", method=method)  # noqa: S310 - http on the loopback
    with urllib.request.urlopen(request) as response:  # noqa: S310 - http to a server of the test
        text = response.read()
    return json.loads(text) if text.startswith(b"{") else text.decode()


def to_mailpit(mailpit: Mailpit, **more: Any) -> EmailSender:
    chosen = {"host": mailpit.host, "port": mailpit.smtp_port, "tls": "none", "sender": "Büro <shop@example.com>"}
    return EmailSender(EmailSettings(**{**chosen, **more}))


@pytest.fixture
def inbox(mailpit: Mailpit) -> Iterator[Mailpit]:
    """Mailpit with nothing in it."""
    ask(mailpit, "/messages", "DELETE")
    yield mailpit
    ask(mailpit, "/messages", "DELETE")


async def test_a_message_arrives_with_its_subject_body_and_sender(inbox: Mailpit) -> None:
    subject, body = (
        "Grüße an 世界 🎉  " + "и так далее " * 10 + "=?utf-8?q?x?=",
        "Zeile eins ä\n.\nZeile drei 🎉 " + "x" * 2000 + "\n",
    )
    result = await to_mailpit(inbox).send(letter(subject=subject, body=body), Context(job_id=9))
    [summary] = ask(inbox, "/messages")["messages"]
    message = ask(inbox, f"/message/{summary['ID']}")
    assert message["Subject"] == subject
    assert message["Text"].replace("\r\n", "\n") == body
    assert message["From"] == {"Name": "Büro", "Address": "shop@example.com"}
    assert [person["Address"] for person in message["To"]] == ["ada@example.com"]
    assert f"<{message['MessageID']}>" == result["message_id"]
    assert result["message_id"].startswith("<job-9.")
    assert not message["HTML"]


async def test_a_repeated_attempt_has_the_same_message_id(inbox: Mailpit) -> None:
    for attempt in (1, 2):
        await to_mailpit(inbox).send(letter(), Context(job_id=3, attempt=attempt))
    messages = ask(inbox, "/messages")["messages"]
    assert len(messages) == 2
    assert len({message["MessageID"] for message in messages}) == 1


@pytest.mark.parametrize(
    "name", ["Acme, Inc.", "A@B", "O'Neil; Co", "Team: Support", "Müller & Söhne, Köln", "S (EU)."]
)
async def test_a_senders_name_may_have_any_characters(inbox: Mailpit, name: str) -> None:
    await to_mailpit(inbox, sender=f"{name} <shop@example.com>").send(letter(), Context())
    [summary] = ask(inbox, "/messages")["messages"]
    assert summary["From"] == {"Name": name, "Address": "shop@example.com"}


async def test_a_recipient_in_an_international_domain_is_written_in_idna(inbox: Mailpit) -> None:
    await to_mailpit(inbox).send(letter(to="ada@bücher.com"), Context())
    [summary] = ask(inbox, "/messages")["messages"]
    assert summary["To"][0]["Address"] == "ada@xn--bcher-kva.com"


@pytest.mark.parametrize("attack", ["x\r\nBcc: eve@example.com", "x\nBcc: eve@example.com\n\nbody", "x\r\n.\r\nQUIT"])
async def test_a_subject_past_the_model_still_injects_no_header(inbox: Mailpit, attack: str) -> None:
    forged = SendEmail.model_construct(to="ada@example.com", subject=attack, body="x")
    with pytest.raises(NeverRetry):
        await to_mailpit(inbox).send(forged, Context())
    assert ask(inbox, "/messages")["messages"] == []


async def test_a_body_cannot_end_the_message_and_start_another(inbox: Mailpit) -> None:
    body = "a\r\n.\r\nMAIL FROM:<eve@example.com>\r\nb\n.\nQUIT\r.\rc"
    await to_mailpit(inbox).send(letter(body=body), Context())
    [summary] = ask(inbox, "/messages")["messages"]
    text = ask(inbox, f"/message/{summary['ID']}")["Text"]
    assert text.split() == body.split()


@contextlib.contextmanager
def chaos(mailpit: Mailpit, **triggers: int) -> Iterator[None]:
    """Mailpit answers a step (`Sender`, `Recipient`, `Authentication`) with an error code."""

    def put(body: dict[str, Any]) -> None:
        request = urllib.request.Request(  # noqa: S310 - http to a server of the test
            f"{mailpit.api}/chaos", json.dumps(body).encode(), {"content-type": "application/json"}, method="PUT"
        )
        urllib.request.urlopen(request).close()  # noqa: S310 - http to a server of the test

    put({step: {"ErrorCode": code, "Probability": 100} for step, code in triggers.items()})
    try:
        yield
    finally:
        put({})


@pytest.mark.parametrize("step", ["Sender", "Recipient"])
@pytest.mark.parametrize(("code", "kind"), [(421, TryAgain), (451, TryAgain), (550, NeverRetry), (554, NeverRetry)])
async def test_mailpits_refusals_decide_whether_the_job_is_retried(
    inbox: Mailpit, step: str, code: int, kind: type[Exception]
) -> None:
    with chaos(inbox, **{step: code}), pytest.raises(kind, match=f"refused .*{code}"):
        await to_mailpit(inbox).send(letter(), Context())


# --- servers with a mind of their own -------------------------------------------------------------------------------


class Script:
    """An aiosmtpd handler that answers the steps as told and keeps what it accepted."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.accepted: list[bytes] = []
        self.greeted: list[str] = []

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: Any) -> Any:  # noqa: N802
        self.greeted.append(hostname)
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.mail_from = address
        return self.answers.get("mail", "250 OK")

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        named = session.host_name
        if self.answers.get("helo") == "full" and "." not in named and not named.startswith("["):
            # Postfix with reject_non_fqdn_helo_hostname
            return f"504 5.5.2 <{named}>: Helo command rejected: need fully-qualified hostname"
        return self.answers.get("rcpt", "250 OK")

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answers.get("data") == "hang up":
            server.transport.close()
            return "421 bye"
        answer = self.answers.get("data", "250 queued as 77")
        if answer.startswith("250"):
            self.accepted.append(envelope.content)
        return answer

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.answers.get("quit") == "hang up":
            server.transport.close()
        return self.answers.get("quit", "221 bye")


@contextlib.asynccontextmanager
async def server(script: Script, certificate: Certificate | None = None, **options: Any) -> AsyncIterator[int]:
    """An SMTP server in a thread of its own; its port."""
    port = free_port()
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        options["ssl_context" if options.pop("implicit", False) else "tls_context"] = context
    controller = Controller(script, hostname=LOOPBACK, port=port, **options)
    await asyncio.to_thread(controller.start)
    try:
        yield port
    finally:
        await asyncio.to_thread(controller.stop)


def to(port: int, **more: Any) -> EmailSender:
    chosen = {"host": LOOPBACK, "port": port, "tls": "none", "timeout_seconds": 5}
    return EmailSender(EmailSettings(**{**chosen, **more}))


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({"mail": "451 later"}, TryAgain),
        ({"mail": "550 never"}, NeverRetry),
        ({"rcpt": "450 mailbox busy"}, TryAgain),
        ({"rcpt": "452 too many"}, TryAgain),
        ({"rcpt": "550 no such user"}, NeverRetry),
        ({"rcpt": "553 bad address"}, NeverRetry),
        ({"data": "451 greylisted"}, TryAgain),
        ({"data": "452 disk full"}, TryAgain),
        ({"data": "552 too large"}, NeverRetry),
        ({"data": "554 spam"}, NeverRetry),
        ({"data": "hang up"}, TryAgain),
    ],
)
async def test_temporary_answers_are_retried_and_permanent_ones_are_final(
    answers: dict[str, str], kind: type[Exception]
) -> None:
    script = Script(**answers)
    async with server(script) as port:
        with pytest.raises(kind):
            await to(port).send(letter(), Context())
    assert script.accepted == []


@pytest.mark.parametrize("quit", ["hang up", "421 later", "500 what"])
async def test_a_bad_farewell_does_not_send_the_message_again(quit: str) -> None:
    script = Script(quit=quit)
    async with server(script) as port:
        result = await to(port).send(letter(), Context())
    assert "queued as 77" in result["response"]
    assert len(script.accepted) == 1


async def test_a_server_that_is_away_or_silent_is_tried_again() -> None:
    with pytest.raises(TryAgain, match="cannot be reached"):
        await to(free_port()).send(letter(), Context())

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listen(silent) as port:
        with pytest.raises(TryAgain):
            await to(port, timeout_seconds=0.3).send(letter(), Context())


async def test_a_cancelled_job_lets_go_of_a_silent_server_at_once() -> None:
    greeted = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        await reader.readline()
        greeted.set()
        await reader.read()

    async with listen(silent) as port:
        task = asyncio.create_task(to(port, timeout_seconds=300).send(letter(), Context()))
        await greeted.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(60):  # and not the 300 s that it may take
                await task


# --- the name in EHLO, and where a connection was lost ---------------------------------------------------------------


async def test_by_default_a_server_that_wants_a_full_name_gets_one_or_an_address() -> None:
    script = Script(helo="full")
    async with server(script) as port:
        await to(port).send(letter(), Context())
    assert len(script.accepted) == 1


async def test_a_host_without_a_full_name_says_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "goqueue-worker-7f9c")  # as in a pod
    script = Script(helo="full")
    async with server(script) as port:
        await to(port).send(letter(), Context())
    assert script.greeted == [f"[{LOOPBACK}]"]


async def test_the_name_of_the_settings_is_said_and_blamed_where_it_is_refused() -> None:
    script = Script(helo="full")
    async with server(script) as port:
        await to(port, helo="mail.example.com").send(letter(), Context())
        with pytest.raises(TryAgain, match=r"504 .*\(EHLO short: see GOQUEUE_SMTP_HELO\)"):
            await to(port, helo="short").send(letter(), Context())
    assert script.greeted == ["mail.example.com", "short"]
    assert len(script.accepted) == 1


@contextlib.asynccontextmanager
async def answering(answers: dict[str, str]) -> AsyncIterator[int]:
    """An SMTP server that gives these answers to commands that begin so, and none to others; its port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while said := (await reader.readline()).decode():
            for command, answer in answers.items():
                if said.startswith(command):
                    writer.write(answer.encode() + b"\r\n")

    async with listen(talk) as port:
        yield port


async def test_a_name_refused_at_ehlo_itself_is_retried_and_the_setting_named() -> None:
    async with answering({"EHLO": "504 5.5.2 full name", "HELO": "504 5.5.2 full name"}) as port:
        with pytest.raises(TryAgain, match=r"refused this client's name: 504 .*see GOQUEUE_SMTP_HELO"):
            await to(port, helo="short").send(letter(), Context())


async def test_a_busy_server_says_nothing_about_the_name() -> None:
    async with answering({"EHLO": "421 busy", "HELO": "421 busy"}) as port:
        with pytest.raises(TryAgain, match="refused EHLO: 421 busy"):
            await to(port).send(letter(), Context())


async def test_a_refused_recipient_stays_refused_where_the_server_falls_silent_after_it() -> None:
    """A reset of the conversation would wait for an answer and hide the one that matters."""
    async with answering({"EHLO": "250 here", "MAIL": "250 ok", "RCPT": "550 no such user"}) as port:
        with pytest.raises(NeverRetry, match="refused the recipient: 550"):
            await to(port, timeout_seconds=0.5).send(letter(), Context())


@contextlib.asynccontextmanager
async def closing(at: str, certificate: Certificate, *, silent: bool = False) -> AsyncIterator[int]:
    """An SMTP server that closes the connection, or says nothing more, when a command begins with `at`; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said, data = "GREETING", False
        while True:
            if said.startswith(at):
                if silent:
                    await reader.read()
                break
            if said == "GREETING":
                answer = "220 here"
            elif said.startswith("EHLO"):
                answer = "250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN"
            elif said.startswith("STARTTLS"):
                writer.write(b"220 go\r\n")
                await writer.start_tls(context)
                answer = ""
            elif said.startswith("DATA"):
                answer, data = "354 go", True
            else:
                answer = "235 in" if said.startswith("AUTH") else "250 ok"
            if answer:
                writer.write(answer.encode() + b"\r\n")
            said = (await (reader.readuntil(b"\r\n.\r\n") if data else reader.readline())).decode()
            if data:
                said = "END OF DATA"
            elif not said:
                break

    async with listen(talk) as port:
        yield port


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("GREETING", "was reached, but sent no greeting"),
        ("EHLO", "connection lost during EHLO"),
        ("STARTTLS", "connection lost during STARTTLS"),
        ("AUTH", "connection lost during AUTH"),
        ("MAIL", "connection lost during MAIL"),
        ("RCPT", "connection lost during RCPT"),
        ("DATA", "connection lost during DATA"),
        ("END OF DATA", "connection lost during DATA"),
    ],
)
async def test_a_lost_connection_says_at_which_step_it_was_lost(certificate: Certificate, at: str, told: str) -> None:
    login = {"tls": "starttls", "tls_ca": certificate.cert, "user": "shop", "password": SecretStr(PASSWORD)}
    async with closing(at, certificate) as port:
        with pytest.raises(TryAgain, match=told) as caught:
            await to(port, **login).send(letter(), Context())
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("at", "told"),
    [("GREETING", "was reached, but sent no greeting"), ("MAIL", r"did not answer MAIL within 0\.3 s")],
)
async def test_silence_says_at_which_step_it_began(certificate: Certificate, at: str, told: str) -> None:
    async with closing(at, certificate, silent=True) as port:
        with pytest.raises(TryAgain, match=told):
            await to(port, timeout_seconds=0.3).send(letter(), Context())


# --- TLS and login --------------------------------------------------------------------------------------------------


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    return AuthResult(success=data.login == b"shop" and data.password == PASSWORD.encode(), handled=False)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")  # implicit TLS is there
@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_tls_and_login_protect_the_message(certificate: Certificate, tls: str) -> None:
    script = Script()
    options = {"authenticator": login, "auth_required": True, "auth_require_tls": tls == "starttls"}
    async with server(script, certificate, implicit=tls == "implicit", **options) as port:
        good = {"tls": tls, "tls_ca": certificate.cert, "user": "shop", "password": SecretStr(PASSWORD)}
        await to(port, **good).send(letter(), Context())
        with pytest.raises(NeverRetry, match="refused the login: 535") as caught:
            await to(port, **{**good, "password": SecretStr("wr0ng-pony")}).send(letter(), Context())
        assert "wr0ng-pony" not in repr(caught.value)
    assert len(script.accepted) == 1


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_a_certificate_that_nobody_vouches_for_gets_no_message(certificate: Certificate, tls: str) -> None:
    script = Script()
    async with server(script, certificate, implicit=tls == "implicit") as port:
        with pytest.raises(TryAgain, match="certificate verify failed"):
            await to(port, tls=tls).send(letter(), Context())
    assert script.accepted == []


async def test_a_server_without_starttls_gets_no_message_and_no_password() -> None:
    script = Script()
    async with server(script) as port:
        with pytest.raises(NeverRetry, match="GOQUEUE_SMTP"):
            await to(port, tls="starttls", user="shop", password=SecretStr(PASSWORD)).send(letter(), Context())
    assert script.accepted == []


async def test_an_international_mailbox_needs_a_server_that_takes_it() -> None:
    refusing, taking = Script(), Script()
    async with server(refusing, enable_SMTPUTF8=False) as port:
        with pytest.raises(NeverRetry, match="SMTPUTF8"):
            await to(port).send(letter(to="äda@example.com"), Context())
    async with server(taking, enable_SMTPUTF8=True) as port:
        await to(port).send(letter(to="äda@example.com"), Context())
    assert (len(refusing.accepted), len(taking.accepted)) == (0, 1)
