"""docs/config.md is what jssd/config.py says: each field, its default and the reason beside it.

After a change of a field or of its comment:

    python tests/reference_test.py        rewrites docs/config.md
"""

import ast
import dataclasses
import pathlib
import re
import typing

from jssd import config

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "config.md"
HEAD = """# Every setting

Made of the comments in `jssd/config.py` by `python tests/reference_test.py`; a test compares. Set
any field in a config file, or on the command line as `--config.SECTION.FIELD=VALUE`. A value that
cannot be honoured is refused before anything is done.
"""


def comments():
    """(class, field) to the comment above or beside it, of the source of config.py."""
    source = pathlib.Path(config.__file__).read_text()
    lines = source.splitlines()
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for item in node.body:
            if not isinstance(item, ast.AnnAssign):
                continue
            assert isinstance(item.target, ast.Name)
            beside = re.search(r"(?:^|\s)# (.*)$", lines[item.lineno - 1])
            above, at = [], item.lineno - 2
            while lines[at].strip().startswith("#"):
                above.insert(0, lines[at].strip().removeprefix("#").strip())
                at -= 1
            found[node.name, item.target.id] = " ".join(above + ([beside[1]] if beside else []))
    return found


def default(field):
    """The default as one would type it; sections and lists of them are told by their own page."""
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    value = field.default_factory()
    return "" if dataclasses.is_dataclass(value) else repr(value)


def inner(kind) -> type | None:
    """The dataclass of a section, or of the members of a list; else None."""
    for part in (kind, *typing.get_args(kind)):
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            return part
    return None


def page():
    """The whole page as text."""
    said, parts = comments(), [HEAD]

    def add(name, kind):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        sections = [(field, inner(hints[field.name])) for field in fields]
        rows = []
        for field, section in sections:
            if section and hints[field.name] is section:
                continue  # It has a heading of its own.
            typed = hints[field.name]
            typed = typed.__name__ if isinstance(typed, type) else str(typed)
            typed = re.sub(r"jssd\.config\.", "", typed).replace("|", "\\|")
            text = said[kind.__name__, field.name].replace("|", "\\|")
            rows.append(f"| `{field.name}` | {typed} | `{default(field)}` | {text} |")
        title = f"`{name}`" if name else "The run itself"
        doc = " ".join((kind.__doc__ or "").split())
        parts.append(f"## {title}\n\n{doc}\n")
        if rows:
            parts.append(
                "| field | type | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
            )
        for field, section in sections:
            if section and section.__name__ not in done:
                done.add(section.__name__)
                many = "" if hints[field.name] is section else "[i]"
                add(f"{name}.{field.name}{many}" if name else field.name + many, section)

    done: set[str] = set()
    add("", config.Config)
    return "\n".join(parts)


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "Run: python tests/reference_test.py"


def test_every_field_that_needs_words_has_them():
    said = comments()
    kinds = [kind for kind in vars(config).values() if inner(kind)]
    named = {(kind.__name__, f.name) for kind in kinds for f in dataclasses.fields(kind)}
    assert set(said) == named
    assert said["TrainConfig", "loss_chunk"] == "Response tokens whose logits exist at once."
    assert said["MeshConfig", "expert"].startswith("Splits the experts of a mixture of experts")


if __name__ == "__main__":
    PAGE.write_text(page())
