"""Attaching the handlers: clean at start, and small while nothing asks for more."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from goqueue import settings
from goqueue.builtin import PROCESS_PAYMENT, SEND_EMAIL, SEND_WEBHOOK, ProcessPayment, SendEmail, SendWebhook
from goqueue.errors import NeverRetry, SettingsError
from goqueue.settings import EmailSettings, PaymentSettings, WebhookSettings
from goqueue_worker import handlers
from goqueue_worker.handlers.process_payment import PaymentProcessor
from goqueue_worker.handlers.send_email import EmailSender
from goqueue_worker.handlers.send_webhook import WebhookSender
from tests.unit.handlers.context import Context

PAYMENT = {"payment_id": "p1", "user_id": "u1", "amount": 12.5, "currency": "USD", "method": "card"}
SECRET = "whsec_" + "QUJD" * 8


def test_install_gives_all_three_types_their_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (SEND_EMAIL, SEND_WEBHOOK, PROCESS_PAYMENT):
        monkeypatch.setattr(kind, "handler", None)
    installed = handlers.install(EmailSettings(), WebhookSettings(), PaymentSettings())
    assert SEND_EMAIL.handler == installed.email.send
    assert SEND_WEBHOOK.handler == installed.webhook.send
    assert PROCESS_PAYMENT.handler == installed.payment.process


def test_heavy_libraries_wait_for_the_first_job_that_needs_them() -> None:
    code = (
        "import sys; from goqueue_worker import handlers; handlers.install(); "
        "print([name for name in ('stripe', 'httpx', 'aiosmtplib', 'standardwebhooks') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOQUEUE_WEBHOOK_SECRETS", "whsec_c2hvcnQ="),
        ("GOQUEUE_WEBHOOK_SECRETS", "not base64 at all!!"),
        ("GOQUEUE_WEBHOOK_SECRETS", f"{SECRET},oops"),
        ("GOQUEUE_WEBHOOK_ALLOW_NETWORKS", "10.0.0.1/8"),
        ("GOQUEUE_WEBHOOK_ALLOW_NETWORKS", "intranet.example"),
        ("GOQUEUE_WEBHOOK_MAX_RESPONSE_BYTES", "1000000"),
        ("GOQUEUE_SMTP_SENDER", "nobody"),
        ("GOQUEUE_SMTP_SENDER", "a@example.com\nBcc: b@example.com"),
        ("GOQUEUE_SMTP_SENDER", "Acme, Inc. noreply@acme.example"),
        ("GOQUEUE_SMTP_SENDER", "Acme <noreply@acme..example>"),
        ("GOQUEUE_SMTP_SENDER", "Acme <noreply@acme.example>, Other <b@example.com>"),
        ("GOQUEUE_SMTP_SENDER", "A\u2028B <noreply@acme.example>"),
        ("GOQUEUE_SMTP_HOST", "mail.example.com:587"),
        ("GOQUEUE_SMTP_HOST", "smtp://mail.example.com"),
        ("GOQUEUE_SMTP_HELO", "two names"),
        ("GOQUEUE_SMTP_HELO", "mail.example.com\r\nX"),
        ("GOQUEUE_SMTP_TLS", "maybe"),
        ("GOQUEUE_PAYMENT_GATEWAY", "paypal"),
        ("GOQUEUE_PAYMENT_GATEWAY", "stripe"),  # without a key
        ("GOQUEUE_PAYMENT_STRIPE_KEY", "sk_test_x\n"),
        ("GOQUEUE_PAYMENT_STRIPE_URL", "ftp://example.com"),
        ("GOQUEUE_PAYMENT_STRIPE_URL", "http://stripe.example:99999"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        handlers.install()
    assert name in caught.value.message
    assert "\n" not in caught.value.message
    assert value not in caught.value.message or value == "stripe"


@pytest.mark.parametrize(("content", "told"), [(None, "No such file"), ("no certificate", "not a certificate")])
def test_a_ca_file_that_cannot_be_used_stops_the_start_and_not_each_mail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    monkeypatch.setenv("GOQUEUE_SMTP_HOST", "mail.example.com")
    monkeypatch.setenv("GOQUEUE_SMTP_TLS_CA", str(tmp_path / "ca.pem"))
    with pytest.raises(SettingsError, match=f"GOQUEUE_SMTP_TLS_CA: {told}"):
        handlers.install()


@pytest.mark.parametrize("host", ["mail.example.com", "localhost", "10.0.0.7", "2001:db8::7", "mail_relay", "::1"])
def test_a_mail_servers_host_is_a_name_or_an_address(host: str) -> None:
    assert EmailSettings(host=host).host == host


async def test_without_an_smtp_host_an_email_fails_for_good_and_names_the_setting() -> None:
    payload = SendEmail(to="ada@example.com", subject="s", body="b")
    with pytest.raises(NeverRetry, match="GOQUEUE_SMTP_HOST"):
        await EmailSender(EmailSettings()).send(payload, Context())


async def test_without_a_gateway_a_payment_fails_for_good_and_names_the_setting() -> None:
    with pytest.raises(NeverRetry, match="GOQUEUE_PAYMENT_GATEWAY"):
        await PaymentProcessor(PaymentSettings()).process(ProcessPayment.model_validate(PAYMENT), Context())


async def test_the_sandbox_charges_nobody_and_says_so() -> None:
    processor = PaymentProcessor(PaymentSettings(gateway="sandbox"))
    payload = ProcessPayment.model_validate(PAYMENT)
    first = await processor.process(payload, Context(attempt=1))
    again = await processor.process(payload, Context(attempt=2))
    assert first == again
    assert first["sandbox"] is True
    assert (first["amount"], first["currency"], first["status"]) == (1250, "usd", "succeeded")


async def test_an_amount_with_too_many_decimals_is_refused_before_any_gateway_sees_it() -> None:
    chosen = PaymentSettings(gateway="stripe", stripe_key=SecretStr("sk_test_x"), stripe_url="http://127.0.0.1:1")
    processor = PaymentProcessor(chosen)
    try:
        with pytest.raises(NeverRetry, match="more decimals"):
            await processor.process(ProcessPayment.model_validate({**PAYMENT, "amount": 1.234}), Context())
    finally:
        await processor.close()


@pytest.mark.parametrize("name", ["Host", "content-length", "Webhook-Signature", "webhook-id", "Transfer-Encoding"])
def test_a_webhook_cannot_set_headers_that_frame_or_sign_it(name: str) -> None:
    payload = {"url": "https://shop.example/", "method": "POST", "body": {}, "headers": {name: "x"}}
    with pytest.raises(ValueError, match="is set by GoQueue"):
        SendWebhook.model_validate(payload)


async def test_a_forbidden_url_fails_for_good() -> None:
    sender = WebhookSender(settings.WebhookSettings())
    payload = SendWebhook(url="http://0x7f.1/", method="POST", body={})
    with pytest.raises(NeverRetry, match="unusual notation"):
        await sender.send(payload, Context())
