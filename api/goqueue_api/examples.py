"""Bodies that the OpenAPI document shows as examples; each is valid as it is."""

from typing import Any, Final

_MAIL: Final = {"to": "ada@example.org", "subject": "Hello", "body": "It works."}

CREATE: Final[dict[str, dict[str, Any]]] = {
    "send_email": {
        "summary": "Send an e-mail",
        "value": {"type": "send_email", "payload": _MAIL},
    },
    "send_webhook": {
        "summary": "Send a webhook",
        "value": {
            "type": "send_webhook",
            "payload": {
                "url": "https://example.org/hooks/orders",
                "method": "POST",
                "headers": {"X-Shop": "main"},
                "body": {"order": 4711, "state": "shipped"},
                "timeout": 10,
            },
        },
    },
    "process_payment": {
        "summary": "Charge a customer",
        "value": {
            "type": "process_payment",
            "payload": {
                "payment_id": "order-4711",
                "user_id": "user-17",
                "amount": 12.5,
                "currency": "EUR",
                "method": "card",
                "payment_method": "pm_card_visa",
            },
        },
    },
    "options": {
        "summary": "With every option",
        "value": {
            "queue": "email",
            "type": "send_email",
            "payload": _MAIL,
            "priority": 10,
            "available_at": "2030-01-31T08:00:00Z",
            "max_retries": 3,
            "timeout": 30,
            "unique_key": "welcome-ada",
        },
    },
}
"""By the name of a built-in type, and one with all options."""

BULK: Final[dict[str, dict[str, Any]]] = {
    "array": {
        "summary": "Two e-mails",
        "value": [
            {"type": "send_email", "payload": _MAIL},
            {"type": "send_email", "payload": {**_MAIL, "to": "bob@example.org"}},
        ],
    }
}

SCHEDULE: Final[dict[str, dict[str, Any]]] = {
    "weekdays": {
        "summary": "At six on weekdays in Berlin",
        "value": {
            "cron": "0 6 * * 1-5",
            "time_zone": "Europe/Berlin",
            "job": {"type": "send_email", "payload": _MAIL},
        },
    }
}

KEY: Final[dict[str, dict[str, Any]]] = {
    "restricted": {
        "summary": "A key for one queue that expires",
        "value": {"name": "ci", "scopes": ["jobs:read", "jobs:write"], "queues": ["email"], "expires_in": 2592000},
    }
}
