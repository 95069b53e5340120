"""What GoQueue asks of Redis: the commands, keys and channels that its user there needs, and no others."""

from typing import Final

COMMANDS: Final = (
    # queues
    "zadd",
    "zrem",
    "zcard",
    "zrange",
    "zremrangebyscore",
    "bzmpop",
    # what is beyond the window of a queue; two of them and zrange in a script
    "zcount",
    "zunionstore",
    "hmget",
    "hdel",
    # counters and marks
    "hincrby",
    "hgetall",
    "get",
    "set",
    # messages
    "publish",
    "subscribe",
    "unsubscribe",
    # scripts, and what those of the API's rate limits call
    "evalsha",
    "script|load",
    "incrby",
    "expire",
    # a client's own connection
    "ping",
    "select",
    "client|id",
    "client|setinfo",
    "client|unblock",
)
"""Every command that is sent; a test compares it with what a server counted after all of the work was done."""

CLUSTER_COMMANDS: Final = (
    "cluster|slots",
    "cluster|shards",
    "cluster|nodes",
    "command",
    "asking",
    "readonly",
    "readwrite",
)
"""What a client asks of a Redis Cluster beside them."""


def user(name: str, prefix: str, *, cluster: bool = False) -> str:
    """The user as a line of an ACL file, without its password: `>PASSWORD` or `#SHA256` is to be added.

    Raises:
        ValueError: name or prefix holds white space.
    """
    if any(not text or text.split() != [text] for text in (name, prefix)):
        raise ValueError("a user's name and the prefix hold no white space")
    pattern = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in prefix)
    commands = (*COMMANDS, *(CLUSTER_COMMANDS if cluster else ()))
    allowed = " ".join(f"+{command}" for command in commands)
    return f"user {name} on resetkeys ~{pattern}:* resetchannels &{pattern}:* -@all {allowed}"
