"""What a count says of the jobs beyond a window while others go on."""

import pytest

from goqueue.broker.overflow import Size
from goqueue_scheduler.beyond import missing


@pytest.mark.parametrize(
    ("ready", "before", "after", "missed"),
    [
        (200, Size(100, 100), Size(100, 100), 0),
        (200, Size(100, 0), Size(100, 0), 100),  # inserted by SQL: nobody counted them
        (150, Size(100, 100), Size(100, 100), -50),  # cancelled out there
        (250, Size(100, 100), Size(100, 150), 0),  # an enqueuer committed before the count and counted after it
        (300, Size(100, 100), Size(100, 150), 50),  # both: fifty were missed whatever the enqueuer did
        (50, Size(100, 0), Size(60, 0), 0),  # workers took some
    ],
)
def test_only_what_both_looks_at_redis_say_is_an_error(ready: int, before: Size, after: Size, missed: int) -> None:
    assert missing(ready, before, after) == missed
