"""The README's tables are what the command prints of the scores kept in results/."""

import pathlib

from jssd.evals import arms

ROOT = pathlib.Path(__file__).parents[1]


def test_the_arms_of_the_readme_are_those_of_the_results(capsys):
    folders = [str(ROOT / "results" / "arms" / name) for name in ("raw", "soft", "passed", "null")]
    assert arms.main(folders) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3 * 6  # Heading, base and four arms, at each of three decodings.
    assert [row for row in rows if row not in readme] == []
