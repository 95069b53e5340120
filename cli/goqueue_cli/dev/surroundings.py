"""The environment of the parts: what of the user's must not reach them, and where built-in jobs go by default."""

import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from goqueue_cli.keeper import LOOPBACK

NAMED: Final = frozenset(
    (
        "PGAPPNAME",
        "PGCONNECT_TIMEOUT",
        "PGDATABASE",
        "PGHOST",
        "PGPASSWORD",
        "PGPORT",
        "PGSSLMODE",
        "PGTARGETSESSIONATTRS",
        "PGUSER",
    )
)
"""Variables of libpq whose values our connection strings name themselves. They stay: a handler may connect to a
database of its own by them."""

LIBPQ: Final = frozenset(
    (
        "PGCHANNELBINDING",
        "PGCLIENTENCODING",
        "PGDATESTYLE",
        "PGGEQO",
        "PGGSSDELEGATION",
        "PGGSSENCMODE",
        "PGGSSLIB",
        "PGHOSTADDR",
        "PGKRBSRVNAME",
        "PGLOADBALANCEHOSTS",
        "PGMAXPROTOCOLVERSION",
        "PGMINPROTOCOLVERSION",
        "PGOPTIONS",
        "PGPASSFILE",
        "PGREQUIREAUTH",
        "PGREQUIREPEER",
        "PGREQUIRESSL",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGSSLCERT",
        "PGSSLCERTMODE",
        "PGSSLCOMPRESSION",
        "PGSSLCRL",
        "PGSSLCRLDIR",
        "PGSSLKEY",
        "PGSSLMAXPROTOCOLVERSION",
        "PGSSLMINPROTOCOLVERSION",
        "PGSSLNEGOTIATION",
        "PGSSLROOTCERT",
        "PGSSLSNI",
        "PGSYSCONFDIR",
        "PGTZ",
    )
)
"""The others: each can refuse the embedded server, lead elsewhere, or change how it answers.
https://www.postgresql.org/docs/current/libpq-envars.html"""

SETTINGS: Final = ("POSTGRES_", "GOQUEUE_REDIS_")
"""Settings of other stores."""


def forget_stores(environment: MutableMapping[str, str]) -> None:
    """Remove from an environment what names other stores, or would disturb connections to the embedded ones."""
    for name in list(environment):
        setting = name.upper()  # settings are read in either case
        if name in LIBPQ or setting.startswith(SETTINGS) or setting == "DB_PGBOUNCER":
            del environment[name]


@dataclass(frozen=True)
class Receiver:
    """Where the jobs of a built-in type go unless the user's own settings say."""

    type: str
    decided_by: tuple[str, ...]
    """Variables of which any means that the user says where they go."""
    values: dict[str, str]

    @property
    def is_the_users(self) -> bool:
        """Whether the user has said where they go."""
        return any(name.upper() in self.decided_by for name in os.environ)


def receivers(mail_port: int) -> list[Receiver]:
    """One for each built-in type: nothing that a job does by these settings leaves this machine."""
    smtp = ("HOST", "PORT", "USER", "PASSWORD", "TLS", "TLS_CA")
    payment = ("GATEWAY", "STRIPE_KEY", "STRIPE_URL")
    mail = {"GOQUEUE_SMTP_HOST": LOOPBACK, "GOQUEUE_SMTP_PORT": str(mail_port), "GOQUEUE_SMTP_TLS": "none"}
    networks = "GOQUEUE_WEBHOOK_ALLOW_NETWORKS"
    return [
        Receiver("send_email", tuple(f"GOQUEUE_SMTP_{name}" for name in smtp), mail),
        # Here, and nowhere else by default, a webhook may call this machine.
        Receiver("send_webhook", (networks,), {networks: "127.0.0.0/8,::1/128"}),
        Receiver(
            "process_payment",
            tuple(f"GOQUEUE_PAYMENT_{name}" for name in payment),
            {"GOQUEUE_PAYMENT_GATEWAY": "sandbox"},
        ),
    ]
