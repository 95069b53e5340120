"""`python -m goqueue_operator.crds [FOLDER]`: print the definitions, or write them into a folder.

The payloads of your own job types are checked at apply as well where GOQUEUE_JOBS names their modules.
"""

import sys
from pathlib import Path

import yaml

import goqueue.builtin  # noqa: F401 - registers the built-in types
from goqueue import registry, settings
from goqueue.settings import EngineSettings
from goqueue_operator.crds import files

HEAD = "# Written by `python -m goqueue_operator.crds` from goqueue_operator/crds.\n"


class _Dumper(yaml.SafeDumper):
    """Without `&id001`: what two places share is written out twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def rendered() -> dict[str, str]:
    """Name → text of each file."""
    return {
        name: HEAD + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=118, allow_unicode=True)
        for name, content in files(registry.REGISTRY).items()
    }


def main() -> int:
    """Print or write."""
    registry.load(settings.load(EngineSettings).jobs)
    if len(sys.argv) == 1:
        print("---\n".join(rendered().values()), end="")
        return 0
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in rendered().items():
        (folder / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
