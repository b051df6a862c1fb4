"""The report: numbers as the stages wrote them, hostile text tamed, gaps named, old pages kept."""

import dataclasses
import html
import json
import os
import re

import numpy as np
import pytest

from jssd.config import Config, DecodeConfig, FilterConfig, to_dict
from jssd.data import filters, samples
from jssd.evals import passk
from jssd.stages import excerpts, findings, heatmaps, report, sweep_summary
from tests.stages.sweep_test import make_summary

HOSTILE = '</pre><script>alert(1)</script><img src="https://evil.example/x.png">\ud800'
RESAMPLES = 200


def make_config(seed=0):
    config = Config(name="tiny run")
    config.model.path = "some/model"
    config.train.num_steps = 4
    config.train.warmup_steps = 1
    config.sampling.seed = config.train.seed = config.evaluate.seed = seed
    config.evaluate.n, config.evaluate.ks, config.evaluate.bootstrap = 2, (1, 2), RESAMPLES
    config.evaluate.decodes = [
        DecodeConfig(name="greedy$", temperature=0.5),
        DecodeConfig(name="hot", temperature=1.0, top_k=20, top_p=0.8),
    ]
    config.evaluate.base_decode, config.evaluate.student_decode = "greedy$", "hot"
    return config


def write_json(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))


def write_samples(workdir, num=30):
    drawn = [
        samples.Sample(
            prompt_id=f"p{i:02d}", sample=0, prompt=f"Question {i} <b>", prompt_token_ids=[1, 2],
            token_ids=[3] * (i + 1), text=f"answer {i}\n{HOSTILE[:-1]}", logprobs=[-0.5] * (i + 1),
            support_sizes=[], support_ids=[], finish_reason="stop", seed=0, fingerprint="f0",
            sampling={"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                      "max_new_tokens": 64},
            template="user",
        )
        for i in range(num)
    ]  # fmt: skip
    with samples.SampleWriter(workdir / "samples" / "part-00000.jsonl") as writer:
        writer.write(drawn)
        writer.finish()
    stats = filters.stats(drawn)
    write_json(
        workdir / "samples" / "manifest.json",
        {"prompts": {"read": 41, "not_blank": num}, "samples": stats, "fingerprint": "f0"},
    )
    kept, counts = filters.apply(drawn, FilterConfig(drop_shortest_percent=10.0))
    batches = {"batches_per_epoch": 3.25, "loss_tokens_per_batch": 77.0, "pack_efficiency": 0.91}
    write_json(
        workdir / "data" / "stats.json",
        {"filters": counts, "samples": filters.stats(kept), "batches": batches},
    )


def write_training(workdir, steps=4):
    (workdir / "train").mkdir(parents=True)
    rows = [
        {"step": s, "loss": 2.0 - 0.125 * s, "kept_mass": 0.9 + 0.01 * s, "grad_norm": None}
        for s in range(1, steps + 1)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (workdir / "train" / "metrics.jsonl").write_text(lines)


def scores_of(decode, model, correct, seed):
    n = np.full(len(correct), 2)
    return {
        "benchmark": "tasks", "decode": dataclasses.asdict(decode), "model": model, "n": 2,
        "problems": len(correct),
        "pass_at": {
            str(k): dataclasses.asdict(
                passk.mean_interval(passk.pass_at_k(n, correct, k), resamples=RESAMPLES, seed=seed)
            )
            for k in (1, 2)
        },
        "verdicts": {"passed": int(sum(correct)), "wrong": int(2 * len(correct) - sum(correct))},
        "mean_tokens": 12.5, "truncated": 0.25, "sandbox": "A box of sand & walls.",
        "per_problem": [{"id": f"t{i:02d}", "n": 2, "c": int(c)} for i, c in enumerate(correct)],
        "fingerprint": f"print-{model}",
    }  # fmt: skip


def write_evaluation(workdir, config, correct):
    """`correct`: for (decode name, model) the right samples, of two, of each problem."""
    cells = {}
    for decode in config.evaluate.decodes:
        for model in ("base", "student"):
            right = correct[decode.name, model]
            place = workdir / "eval" / "tasks" / decode.name / model
            cells[decode.name, model] = scores_of(decode, model, right, config.evaluate.seed)
            write_json(place / "scores.json", cells[decode.name, model])
            rows = [
                {"task_id": f"t{i:02d}", "sample": s, "text": f"{model} says {HOSTILE}",
                 "verdict": "passed" if s < c else "wrong", "detail": "<i>detail</i>",
                 "finish_reason": "stop", "num_tokens": 3}
                for i, c in enumerate(right) for s in range(2)
            ]  # fmt: skip
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (place / "completions.jsonl").write_text(lines)
    pairs = [("same", d.name, d.name) for d in config.evaluate.decodes]
    pairs.append(("own", config.evaluate.base_decode, config.evaluate.student_decode))
    rows = []
    for kind, base_decode, student_decode in pairs:
        base, student = cells[base_decode, "base"], cells[student_decode, "student"]
        for k in (1, 2):
            values = [
                passk.pass_at_k([2] * len(c), c, k)
                for c in (correct[student_decode, "student"], correct[base_decode, "base"])
            ]
            gap = passk.paired_difference(*values, resamples=RESAMPLES, seed=0)
            rows.append({
                "benchmark": "tasks", "k": k, "kind": kind, "base_decode": base_decode,
                "student_decode": student_decode, "base": base["pass_at"][str(k)],
                "student": student["pass_at"][str(k)], "difference": dataclasses.asdict(gap),
                "verdict": gap.verdict,
            })  # fmt: skip
    write_json(workdir / "eval" / "comparisons.json", rows)


def counts(*shares):
    """Right samples of 20 problems: the first so many have both right."""
    names = [("greedy$", "base"), ("greedy$", "student"), ("hot", "base"), ("hot", "student")]
    return {name: [2] * share + [0] * (20 - share) for name, share in zip(names, shares)}


def full_run(workdir, seed=0, correct=None):
    config = make_config(seed)
    write_json(workdir / "config.json", to_dict(config))
    write_samples(workdir)
    write_training(workdir)
    write_evaluation(workdir, config, correct or counts(10, 10, 4, 14))
    (workdir / "export").mkdir()
    return workdir


def page_of(folder):
    return (folder / "index.html").read_text(encoding="utf-8")


def test_page_shows_what_the_stages_wrote(tmp_path, capsys):
    report.run([full_run(tmp_path / "run")], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "20.0 <span" in page and "70.0 <span" in page  # 4 and 14 of 20 problems.
    assert "+50.0 <span" in page and "< 0.001" not in page  # 200 resamples cannot say that.
    for words in ("some/model", "T 1, top-k 20, top-p 0.8", ">41<", "3.25 batches", "print-base"):
        assert words in page
    assert "A box of sand &amp; walls." in page
    assert "1.875" in page and "not run" not in page
    told = "student better at hot (+50.0); worse at none; not distinguishable from the base at"
    assert told in page
    assert "One seed" in page
    for name in ("lengths.png", "training.png", "pass_at-tasks.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert page.count("data:image/png;base64,") == 2 * 3  # In light and in dark colours.
    out = capsys.readouterr().out
    assert "\x1b" not in out
    row = next(line for line in out.splitlines() if line.split()[:3] == ["tasks", "1", "hot"])
    assert "+50.0" in row and row.rstrip().endswith("better")


def test_completions_stay_text_and_nothing_is_loaded_from_elsewhere(tmp_path):
    report.run([full_run(tmp_path / "run")], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "<script" not in page and "<i>detail" not in page and "<b>\n" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\\ud800" in page
    urls = re.findall(r"""<[^>]*\b(?:src|href|action|data)=["']?([^"'\s>]*)""", page)
    assert urls and all(url.startswith("data:image/png") for url in urls)
    assert "default-src 'none'" in page and "url(" not in page and "@import" not in page


def test_parts_that_were_not_run_are_named(tmp_path, capsys):
    workdir = tmp_path / "run"
    write_json(workdir / "config.json", to_dict(make_config()))
    write_samples(workdir)
    write_training(workdir, steps=2)
    report.run([workdir], tmp_path / "out")
    page = page_of(tmp_path / "out")
    for line in (
        "not finished: sft, step 2 of 4",
        "not run: export",
        "not run: evaluate. There are no scores to show.",
    ):
        assert line in page
    assert "not run: evaluate" in capsys.readouterr().out


def test_scores_without_comparisons_are_shown_as_unfinished(tmp_path):
    workdir = full_run(tmp_path / "run")
    (workdir / "eval" / "comparisons.json").unlink()
    report.run([workdir], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "not finished: evaluate, 4 of 4 scores" in page
    assert "not run: the comparison of base and student" in page


def test_rules_and_groups_stand_beside_the_numbers(tmp_path):
    workdir = full_run(tmp_path / "run")
    for path in workdir.glob("eval/*/*/*/scores.json"):
        scores = json.loads(path.read_text())
        part = {key: scores[key] for key in ("pass_at",)}
        scores |= {
            "told": "tasks: 20 problems & days",
            "protocol": {"extraction": "last_fence", "seconds_per_test": 7.0},
            "by_group": {"easy": part | {"problems": 12}, "hard": part | {"problems": 8}},
        }
        path.write_text(json.dumps(scores))
    report.run([workdir], tmp_path / "out")
    page = " ".join(page_of(tmp_path / "out").split())
    assert "Asked: tasks: 20 problems &amp; days." in page
    assert "judged by: extraction last_fence, seconds per test 7." in page
    assert "by group" in page and page.count("12 problems</span>") == 4
    first = json.loads((workdir / "eval/tasks/hot/base/scores.json").read_text())["pass_at"]["1"]
    assert f'{100 * first["value"]:.1f} <span class="faint">[{100 * first["low"]:.1f}, ' in page


def test_a_sweep_alone_makes_a_page(tmp_path):
    summary = make_summary()
    write_json(tmp_path / "run" / "config.json", to_dict(make_config()))
    write_json(tmp_path / "run" / "sweep" / "summary.json", summary)
    report.run([tmp_path / "run"], tmp_path / "out")
    page = page_of(tmp_path / "out")
    for line in sweep_summary.lines(summary):
        assert line in html.unescape(page)
    figures = {path.name for path in (tmp_path / "out").glob("sweep-*.png")}
    assert figures == {f"sweep-0-{name}.png" for name, _ in heatmaps.draw_all(summary)}
    assert page.count('src="data:image/png;base64,') == len(figures)
    assert page.count("<td>") > len(summary["cells"]) and "not run: evaluate" not in page


def test_the_page_is_dark_where_readers_are(tmp_path):
    page = page_of_run(tmp_path)
    light, dark = page.split("@media (prefers-color-scheme: dark)", 1)
    names = set(re.findall(r"(--[\w-]+):", light[light.index(":root") :]))
    assert names == set(re.findall(r"(--[\w-]+):", dark.split("}", 1)[0]))
    used = set(re.findall(r"var\((--[\w-]+)\)", page))
    assert used and used <= names
    rest = dark.split("}", 2)[2].split("@media (prefers-color-scheme", 1)[0]  # Then, of code.
    assert "body" in rest and not re.findall(r"#[0-9a-f]{3,6}", rest)


def page_of_run(tmp_path):
    report.run([full_run(tmp_path / "run")], tmp_path / "out")
    return page_of(tmp_path / "out")


def test_nothing_at_all_is_one_clear_error(tmp_path):
    write_json(tmp_path / "run" / "config.json", to_dict(make_config()))
    with pytest.raises(FileNotFoundError, match=r"nothing to report in .*run\. Run stage sample"):
        report.run([tmp_path / "run"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_seeds_are_averaged_by_problem_before_problems_are_resampled(tmp_path):
    # Seed 0 solves the first ten problems, seed 1 the other ten: every problem averages to 0.5, so
    # no choice of problems moves the mean, and its interval has no width.
    first = dict.fromkeys(counts(0, 0, 0, 0), [2] * 10 + [0] * 10)
    second = dict.fromkeys(counts(0, 0, 0, 0), [0] * 10 + [2] * 10)
    runs, absent = findings.read(
        [
            full_run(tmp_path / "seed-0", 0, first),
            full_run(tmp_path / "seed-1", 1, second),
            tmp_path / "seed-2",
        ]
    )
    assert absent == ["seed-2"]
    pooled = findings.cells(runs)[0].pass_at[1]
    assert pooled.over_all == passk.Estimate(0.5, 0.5, 0.5)
    assert pooled.by_seed["seed-0"].high > 0.6
    gap = findings.gaps(runs)[0]
    assert gap.difference.value == 0 and gap.verdict == "not distinguishable"


def test_page_of_several_seeds_has_their_rows_and_range(tmp_path):
    dirs = [
        full_run(tmp_path / "seed-0", 0, counts(10, 10, 4, 14)),
        full_run(tmp_path / "seed-1", 1, counts(10, 10, 4, 8)),
    ]
    report.run([*dirs, tmp_path / "seed-2"], tmp_path / "out")
    page = page_of(tmp_path / "out")
    assert "not run: every stage of seed-2" in page
    assert "+20.0 to +50.0; above 0 in 2 of 2" in page
    assert "+35.0 <span" in page  # The mean of +50 and +20 points.
    assert "They do not cover other seeds." in page and "One seed" not in page


def test_runs_of_different_experiments_are_not_pooled(tmp_path):
    full_run(tmp_path / "a")
    full_run(tmp_path / "b")
    config = make_config()
    config.train.learning_rate = 1e-4
    write_json(tmp_path / "b" / "config.json", to_dict(config))
    with pytest.raises(ValueError, match=r"train\.learning_rate is 5e-06 and 0\.0001"):
        report.run([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_seeds_scored_on_different_problems_are_not_pooled(tmp_path):
    full_run(tmp_path / "a")
    full_run(tmp_path / "b", 1)
    path = tmp_path / "b" / "eval" / "tasks" / "hot" / "base" / "scores.json"
    path.write_text(path.read_text().replace('"t00"', '"other"'))
    with pytest.raises(ValueError, match="different problems of tasks at hot"):
        report.run([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


@pytest.mark.parametrize("point", ["draw", "write", "rename"])
def test_a_kill_half_way_leaves_the_old_page_whole(tmp_path, monkeypatch, point):
    workdir, out = full_run(tmp_path / "run"), tmp_path / "out"
    report.run([workdir], out)
    before = page_of(out)
    write_training_again = workdir / "train" / "metrics.jsonl"
    write_training_again.write_text(write_training_again.read_text().replace("1.875", "1.9375"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if point == "draw":
            patch.setattr(report.plots, "pass_at", killed)
        elif point == "write":
            patch.setattr(report.os, "fsync", killed)
        else:
            replace = os.replace
            patch.setattr(
                report.os,
                "replace",
                lambda a, b: killed() if b.name == "index.html" else replace(a, b),
            )
        with pytest.raises(KeyboardInterrupt):
            report.run([workdir], out)
    assert page_of(out) == before
    report.run([workdir], out)
    assert "1.938" in page_of(out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


def test_other_files_of_the_folder_survive_and_stale_figures_go(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "pass_at-gone.png").write_bytes(b"old")
    report.run([full_run(tmp_path / "run")], out)
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "pass_at-gone.png").exists()


def test_samples_to_read_are_spread_over_the_run(tmp_path):
    (run,), _ = findings.read([full_run(tmp_path / "run")])
    assert [s.prompt_id for s in excerpts.training(run, 3)] == ["p00", "p10", "p20"]
    found = excerpts.pairs(run, 12)
    assert {(p.base_decode, p.student_decode) for p in found} == {
        ("greedy$", "greedy$"), ("hot", "hot"), ("greedy$", "hot"),
    }  # fmt: skip
    assert [p.task for p in found[:4]] == ["t00", "t05", "t10", "t15"]
    assert found[0].base and found[0].base["text"].startswith("base says")
    long = "x" * (excerpts.MAX_CHARS + 5)
    assert excerpts.clip(long).endswith("[5 more characters are not shown here]")


def test_a_broken_file_is_named(tmp_path):
    workdir = full_run(tmp_path / "run")
    (workdir / "data" / "stats.json").write_text("{")
    with pytest.raises(ValueError, match=r"data/stats.json is not valid JSON"):
        report.run([workdir], tmp_path / "out")
