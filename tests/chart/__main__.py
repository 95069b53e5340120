"""`python -m tests.chart write`: make the generated files of the chart anew. `check`: say which are not current."""

import sys

from tests.chart import generated
from tests.chart.chart import CHECKOUT


def main() -> int:
    """Carry out the command."""
    if sys.argv[1:] not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = []
    for path, text in generated.all_files():
        if path.exists() and path.read_text() == text:
            continue
        if sys.argv[1] == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        stale.append(str(path.relative_to(CHECKOUT)))
    print("\n".join(stale) or "all current")
    return 1 if stale and sys.argv[1] == "check" else 0


if __name__ == "__main__":
    sys.exit(main())
