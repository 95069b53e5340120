"""The shop's job types. Worker and API import this module (GOQUEUE_JOBS=examples.shop.jobs)."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveInt
from sqlalchemy import Engine, create_engine, func, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from examples.shop.tables import Item, Order, url
from goqueue import JobContext, NeverRetry, RetryPolicy, Snooze, enqueue_in_async, job_type


class OfOrder(BaseModel):
    """Payload: which order. Everything else is read when the job runs, so that it is never out of date."""

    order_id: PositiveInt


@cache
def async_engine() -> AsyncEngine:
    """One pool for all jobs of this process."""
    return create_async_engine(url(), pool_pre_ping=True)


@cache
def engine() -> Engine:
    """The same for functions that are not async."""
    return create_engine(url(), pool_pre_ping=True)


@job_type("ship_order", payload=OfOrder, retry=RetryPolicy(base=1, maximum=60), timeout=30)
async def ship_order(payload: OfOrder, job: JobContext) -> dict[str, Any]:
    """Take the goods from the shelf; have the receipt written and the customer told.

    All of that is one transaction: a worker that dies here leaves nothing half done, and a second run of a job that
    did its work finds that out.
    """
    async with AsyncSession(async_engine()) as session, session.begin():
        order = await session.get(Order, payload.order_id, with_for_update=True)
        if order is None or order.cancelled:
            raise NeverRetry("the order was cancelled")  # another attempt would not help
        if order.shipped_at is not None:
            return {"order": order.id, "again": True}
        on_shelf = (Item.name == order.item) & (Item.stock >= order.quantity)
        shelf = update(Item).where(on_shelf).values(stock=Item.stock - order.quantity).returning(Item.stock)
        left = (await session.execute(shelf)).scalar()
        if left is None:
            job.log(f"{order.quantity} × {order.item} not there yet", "warning")
            # No failure, so no attempt is charged: the job may wait like this for weeks.
            raise Snooze(float(os.environ.get("SHOP_LOOK_AGAIN_SECONDS", "5")), f"waits for {order.item}")
        order.shipped_at = func.now()
        await enqueue_in_async(session, write_receipt, OfOrder(order_id=order.id))
        mail = {"to": order.email, "subject": f"Order {order.id}", "body": f"Your {order.item} is on its way."}
        await enqueue_in_async(session, "send_email", mail)
    job.log(f"shipped, {left} left")
    return {"order": payload.order_id, "again": False}


@job_type("write_receipt", payload=OfOrder, queue="default", retry=RetryPolicy(base=0.5, factor=3, maximum=300))
def write_receipt(payload: OfOrder, job: JobContext) -> dict[str, str]:
    """Write a receipt. Not async, so it runs in a thread and may block; a second run writes the same file again."""
    with Session(engine()) as session:
        order = session.get_one(Order, payload.order_id)
    lines = ["RECEIPT", f"order {order.id}", f"{order.quantity} x {order.item}", f"for {order.email}"]
    folder = Path(os.environ.get("SHOP_RECEIPTS", ".goqueue/receipts"))
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{order.id}-{job.attempt}"
    with partial.open("w") as file:
        for number, line in enumerate(lines, 1):
            file.write(line + "\n")
            job.progress(number / len(lines))
    target = partial.replace(folder / f"{order.id}.txt")
    job.log(f"wrote {target}")
    return {"file": str(target)}
