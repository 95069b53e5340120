"""A gateway for development: it charges nobody and says so."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from goqueue_worker.handlers.process_payment import Charge


class SandboxGateway:
    """Every charge succeeds; no money moves and nothing leaves the process."""

    async def charge(self, charge: "Charge") -> dict[str, Any]:
        """The same result for the same payment_id, marked `sandbox: true`."""
        return {
            "gateway": "sandbox",
            "sandbox": True,
            "id": f"sandbox_{hashlib.sha256(charge.payment_id.encode()).hexdigest()[:24]}",
            "status": "succeeded",
            "amount": charge.amount,
            "currency": charge.currency,
        }

    async def close(self) -> None:
        """Nothing is open."""
