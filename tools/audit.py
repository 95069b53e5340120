"""Look up every locked package in the database of known vulnerabilities that the package index keeps (pip-audit).

    tools/audit.py requirements/*.lock

Exit codes: 0 nothing known; 1 vulnerabilities; 3 none found, but some package could not be looked up, because of the
network or because the index knows no vulnerabilities. (pip-audit itself counts such a package as fine.)
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

FOUND: Final = 1
NOT_ASKED: Final = 3


def ask(lock: Path) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each package of a lock, and why it failed where it did."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    done = subprocess.run([*command, "--format", "json", "-r", str(lock)], capture_output=True, text=True, timeout=600)
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["no answer"])[-1]


def main(locks: Sequence[str]) -> int:
    """Audit the locks and say what was found."""
    code = 0
    for lock in map(Path, locks):
        packages, trouble = ask(lock)
        asked = [package for package in packages if "skip_reason" not in package]
        skipped = [package for package in packages if "skip_reason" in package]
        bad = [(package, one) for package in asked for one in package["vulns"]]
        for package, one in bad:
            fixed = ", ".join(one["fix_versions"]) or "nothing yet"
            print(f"{lock.name}: {package['name']} {package['version']}: {one['id']}, fixed by {fixed}")
        print(f"{lock.name}: {len(asked)} packages looked up, {len(bad)} vulnerabilities, {len(skipped)} not looked up")
        if trouble or skipped:
            reason = trouble or skipped[0]["skip_reason"]
            print(f"{lock.name}: the database was not asked about everything: {reason}", file=sys.stderr)
            code = code or NOT_ASKED
        if bad:
            code = FOUND
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
