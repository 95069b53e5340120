"""`python -m grafana`: write the dashboards into the chart, and remove those that are no more."""

from grafana.catalogue import FOLDER, files


def main() -> None:
    """Write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = dict(files())
    for path in FOLDER.glob("*.json"):
        if path not in made:
            path.unlink()
    for path, content in made.items():
        path.write_text(content)


if __name__ == "__main__":
    main()
