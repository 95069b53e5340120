"""How a built-in handler says that an attempt failed and another may help."""


class TryAgain(Exception):
    """The attempt failed for a reason that may pass; the job is retried with its type's backoff."""


def one_line(text: str, limit: int = 200) -> str:
    """Text from a foreign server, fit for an error message: printable, on one line, at most `limit` characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]
