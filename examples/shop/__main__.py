"""The shop's counter: `python -m examples.shop --help`."""

import argparse
import sys
from collections.abc import Callable, Sequence

from sqlalchemy import create_engine, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError, NoResultFound
from sqlalchemy.orm import Session

from examples.shop.jobs import OfOrder, ship_order
from examples.shop.tables import Base, Item, Order, url
from goqueue import Client, enqueue_in


def stock(session: Session, item: str, quantity: int) -> str:
    """Put goods on the shelf."""
    more = insert(Item).values(name=item, stock=quantity)
    more = more.on_conflict_do_update(index_elements=[Item.name], set_={"stock": Item.stock + quantity})
    return f"{session.scalar(more.returning(Item.stock))} x {item} on the shelf"


def order(session: Session, email: str, item: str, quantity: int) -> str:
    """Take an order. It and the job that ships it are committed together, or neither is.

    Whether there is such an item is checked at the commit: an order that fails there takes its job along.
    """
    new = Order(email=email, item=item, quantity=quantity)
    session.add(new)
    session.flush()  # gives the order its id
    new.job_id = enqueue_in(session, ship_order, OfOrder(order_id=new.id), unique_key=f"ship-{new.id}")
    return f"order {new.id}, shipped by job {new.job_id}"


def cancel(session: Session, order_id: int) -> str:
    """Cancel an order that was not shipped."""
    found = session.get_one(Order, order_id, with_for_update=True)
    if found.shipped_at:
        return f"order {order_id} is shipped"
    found.cancelled = True
    return f"order {order_id} is cancelled"


def orders(session: Session) -> str:
    """Show all orders."""
    rows = session.scalars(select(Order).order_by(Order.id))
    states = ((row, "cancelled" if row.cancelled else "shipped" if row.shipped_at else "open") for row in rows)
    return "\n".join(f"{row.id}: {row.quantity} x {row.item} for {row.email}, {state}" for row, state in states)


def wait(session: Session, order_id: int, seconds: float) -> str:
    """Wait until an order's job is done."""
    job_id = session.get_one(Order, order_id).job_id
    assert job_id is not None  # noqa: S101 - `order` sets it
    with Client() as client:
        job = client.wait(job_id, timeout=seconds)
    return f"job {job_id} {job.status}: {job.error or job.result}"


COMMANDS: Sequence[tuple[Callable[..., str], dict[str, type]]] = (
    (stock, {"item": str, "quantity": int}),
    (order, {"email": str, "item": str, "quantity": int}),
    (cancel, {"order_id": int}),
    (orders, {}),
    (wait, {"order_id": int, "seconds": float}),
)


def main() -> None:
    """Do what the command line says, in one transaction."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, arguments in COMMANDS:
        one = commands.add_parser(command.__name__, help=(command.__doc__ or "").splitlines()[0])
        one.set_defaults(command=command)
        for name, kind in arguments.items():
            one.add_argument(name, type=kind)
    chosen = vars(parser.parse_args())
    engine = create_engine(url())
    Base.metadata.create_all(engine)
    try:
        with Session(engine) as session, session.begin():
            said = chosen.pop("command")(session, **chosen)
    except (IntegrityError, NoResultFound, TimeoutError) as error:
        sys.exit(f"refused: {error}")
    print(said)


if __name__ == "__main__":
    main()
