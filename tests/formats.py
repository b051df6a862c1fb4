"""docs/formats.md as a table: the fields it promises, beside those a work directory really has."""

import json
import pathlib
import re

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "formats.md"


def promised() -> dict[str, tuple[set[str], set[str]]]:
    """Pattern of a JSON file -> the fields that are always there, and those that may be."""
    found = {}
    for section in re.split(r"^##+ ", PAGE.read_text(), flags=re.M):
        heading = section.split("\n", 1)[0]
        rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", section, re.M)
        if not re.fullmatch(r"`\S+\.jsonl?`", heading) or not rows:
            continue
        always, may_be = set(), set()
        for names, kind in rows:
            (may_be if "optional" in kind else always).update(re.findall(r"`(\w+)`", names))
        found[heading.strip("`")] = always, may_be
    return found


def compare(workdir: pathlib.Path) -> tuple[set[str], list[str]]:
    """The patterns that have files in `workdir`, and a line for each difference to the page."""
    seen, wrong = set(), []
    for pattern, (always, may_be) in promised().items():
        for path in sorted(workdir.glob(pattern)):
            seen.add(pattern)
            text = path.read_text()
            lines = text.splitlines() if path.suffix == ".jsonl" else [text]
            trees = [json.loads(line) for line in lines]
            for tree in trees:
                for entry in tree if isinstance(tree, list) else [tree]:
                    fields = set(entry)
                    if path.name == "events.jsonl":  # Each kind has more of its own.
                        fields &= always
                    if missing := always - fields:
                        wrong.append(f"{path}: {missing} of docs/formats.md are not there")
                    if more := fields - always - may_be:
                        wrong.append(f"{path}: {more} are not in docs/formats.md")
    return seen, sorted(set(wrong))
