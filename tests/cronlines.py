"""Lines that people copy from other systems, and what each door of ours says of them."""

from typing import Final

NAMES: Final = "cron knows the names @hourly, @daily,"
ZONE: Final = "CRON_TZ= and TZ= cannot be part of cron: set time_zone"
FIELDS: Final = "cron must have five fields: minute, hour, day of month, month, day of week"
STEP: Final = "a step in cron is at most 60 minutes, 24 hours, 31 days, 12 months or 7 days of the week"
ASCII: Final = "cron may contain printable ASCII characters only"

REFUSED: Final = {
    "@every 5m": NAMES,
    "@reboot": NAMES,
    "@Daily": NAMES,
    "@": NAMES,
    "@daily @daily": NAMES,
    "@daily 5": NAMES,
    "CRON_TZ=Asia/Tokyo 5 9 * * *": ZONE,
    "TZ=UTC 0 3 * * *": ZONE,
    "  TZ=UTC 0 3 * * *": ZONE,
    "*/10 * * * * *": FIELDS,
    "0 3 * *": FIELDS,
    "often": FIELDS,
    "0 0 12 * * ?": FIELDS,
    "0 3 * * * # nightly": FIELDS,
    "*/90 * * * *": STEP,
    "*/61 * * * *": STEP,
    "5,0/0100 * * * *": STEP,
    "0 */25 * * *": STEP,
    "0 8-18/30,3 * * *": STEP,
    "0 0 */32 * *": STEP,
    "0 0 1 */13 *": STEP,
    "0 0 * * */8": STEP,
    "0\xa03 * * *": ASCII,
    "0 3 * *\u2003*": ASCII,
    "٠ ٣ * * *": ASCII,
    "0\v3\v*\v*\v*": ASCII,
}
"""Refused before it is stored, by REST, console and the definition of GoQueueSchedule, in the same words."""

WRONG: Final = {
    "61 * * * *": "minute is not valid: 61",
    "? 9 * * *": "minute is not valid: ?",
    "H/15 * * * *": "minute is not valid: H/15",
    "0 24 * * *": "hour is not valid: 24",
    "0 9 15W * *": "day of month is not valid: 15W",
    "0 9 * 13 *": "month is not valid: 13",
    "0 0 * * FRI-MON": "day of week is not valid: FRI-MON",
    "0 0 30 2 *": "never fires",
    "0 0 31 4,6,9,11 *": "never fires",
}
"""Refused by REST and console, and by the operator in the status of a GoQueueSchedule."""

ACCEPTED: Final = [
    *("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually", " @daily\n"),
    *("0 9 ? * MON", "0 9 1 * ?", "0 9 * * 7", "0 9 * * 5-7", "0 9 L * *", "0 9 LW * *", "0 9 * * 5L", "0 9 * * 1#2"),
    *("*/60 */24 */31 */12 */7", "*/06 * * * *", "0/59 * * * *", "  0\t3  * * *\r\n", "0 9 1 jan mon-fri"),
]
