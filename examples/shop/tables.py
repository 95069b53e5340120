"""The shop's own tables. They live in the database of the jobs, so that one transaction can hold both."""

from datetime import datetime

from sqlalchemy import URL, DateTime, ForeignKey, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from goqueue import settings
from goqueue.settings import PostgresSettings


class Base(DeclarativeBase):
    """What SQLAlchemy asks for."""


class Item(Base):
    """Something to buy."""

    __tablename__ = "shop_items"

    name: Mapped[str] = mapped_column(primary_key=True)
    stock: Mapped[int]


class Order(Base):
    """Somebody's order of one item."""

    __tablename__ = "shop_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]
    item: Mapped[str] = mapped_column(ForeignKey(Item.name, deferrable=True, initially="DEFERRED"))
    quantity: Mapped[int]
    cancelled: Mapped[bool] = mapped_column(server_default=text("false"))
    shipped_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    job_id: Mapped[int | None]


def url() -> URL:
    """The database that GoQueue uses (`POSTGRES_*`), by the driver that GoQueue brings."""
    postgres = settings.load(PostgresSettings)
    return URL.create(
        "postgresql+psycopg",
        postgres.user,
        postgres.password.get_secret_value(),
        postgres.host,
        postgres.port,
        postgres.db,
        {"sslmode": postgres.sslmode},
    )
