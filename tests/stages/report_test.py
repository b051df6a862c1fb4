"""The report: numbers as the stages wrote them, hostile text tamed, gaps named, old pages kept."""

import dataclasses
import html
import json
import os
import re

import numpy as np
import pytest

from jssd import main
from jssd.config import Config, DecodeConfig, FilterConfig, to_dict
from jssd.data import filters, samples
from jssd.evals import passk
from jssd.stages import (
    excerpts,
    findings,
    findings_sweep,
    groups,
    heatmaps,
    report,
    run_files,
    toy,
)
from tests import web_page
from tests.stages import mechanism_files
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
    assert web_page.faults(page) == []
    assert "<i>detail" not in page and "<b>\n" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\\ud800" in page
    assert "default-src 'none'" in page


def everything(workdir):
    """A work directory with all that a page can show, but for a plan."""
    split(full_run(workdir), {"easy": 12, "hard": 8})
    write_json(workdir / "sweep" / "summary.json", make_summary())
    config = make_config()
    config.sampling.temperature, config.sampling.top_p = 0.9, 0.85
    write_json(workdir / "toy" / "toy.json", toy.simulate(config))
    mechanism_files.write(workdir, config)
    return workdir


def test_pages_of_all_kinds_are_whole_and_load_nothing(tmp_path):
    everything(tmp_path / "a")
    full_run(tmp_path / "seeds" / "0")
    full_run(tmp_path / "seeds" / "1", 1)
    write_json(tmp_path / "begun" / "config.json", to_dict(make_config()))
    write_samples(tmp_path / "begun")
    for workdirs in (["a"], ["seeds/0", "seeds/1", "seeds/2"], ["begun"]):
        out = tmp_path / workdirs[0] / "report"
        report.run([tmp_path / name for name in workdirs], out)
        assert web_page.faults(page_of(out)) == []
    assert page_of(tmp_path / "a" / "report").count('class="tip"') > 20  # Tokens, coloured.
    assert web_page.faults(page_of(tmp_path / "a" / "mechanism")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        '<img src="https://evil.example/x.png">', "<script>x()</script>", '<a href="//x.y/z">a</a>',
        "<p>open", "</p>", '<b onclick="x()">b</b>', "<style>@import 'x';</style>",
        '<p style="background: url(x)">b</p>', '<picture><source srcset="x.png"></picture>',
        '<i class="a" class="b"></i>',
    ],
)  # fmt: skip
def test_what_no_page_may_hold_is_seen(wrong):
    page = "<!DOCTYPE html><html><body>{}</body></html>"
    assert web_page.faults(page.format("<p>a<br>b</p>")) == []
    assert web_page.faults(page.format(wrong)) != []


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


def split(workdir, sizes):
    """Gives scores their groups: so many problems each, in the order of ids; and their rules."""
    for path in workdir.glob("eval/*/*/*/scores.json"):
        scores, start, groups = json.loads(path.read_text()), 0, {}
        for name, size in sizes.items():
            rows = scores["per_problem"][start : start + size]
            groups[name] = scores_of(DecodeConfig("x"), "base", [row["c"] for row in rows], 0) | {
                "per_problem": rows
            }
            start += size
        scores |= {"told": "tasks: 20 problems & days", "by_group": groups}
        scores |= {"protocol": {"extraction": "last_fence", "seconds_per_test": 7.0}}
        path.write_text(json.dumps(scores))


def test_rules_stand_beside_the_numbers(tmp_path):
    split(full_run(tmp_path / "run"), {"easy": 12, "hard": 8})
    report.run([tmp_path / "run"], tmp_path / "out")
    page = " ".join(page_of(tmp_path / "out").split())
    assert "<b>Problems.</b> tasks: 20 problems &amp; days." in page
    assert "<b>Read, run and judged by.</b> extraction: last_fence; seconds per test: 7." in page
    longest = f"{make_config().evaluate.max_new_tokens:,}"
    assert f"2 completions a problem of at most {longest} tokens, template" in page
    assert 'hot <span class="faint">(T 1, top-k 20, top-p 0.8)</span>' in page
    assert page.count("<td>easy</td>") == page.count("<td>hard</td>") == 3 * 2  # Gaps, k.


def test_groups_are_compared_by_problem(tmp_path):
    # Of 12 easy and 8 hard problems, the base solves the first 4, the student the first 14.
    split(full_run(tmp_path / "run"), {"easy": 12, "hard": 8})
    runs, _ = run_files.read([tmp_path / "run"])
    found = groups.rows(runs, findings.cells(runs), findings.gaps(runs))
    easy, hard = (
        next(row for row in found if (row.kind, row.base_decode, row.k) == ("same", "hot", 1) and
             row.group == name)
        for name in ("easy", "hard")
    )  # fmt: skip
    assert (easy.problems, hard.problems) == (12, 8)
    assert easy.base and easy.student and easy.difference and hard.difference
    assert easy.base.value == pytest.approx(4 / 12) and easy.student.value == 1
    assert easy.difference.value == pytest.approx(8 / 12) and easy.difference.verdict == "better"
    assert hard.difference.value == pytest.approx(2 / 8)
    assert hard.difference.verdict == "not distinguishable"


def test_groups_of_several_seeds_are_averaged_by_problem(tmp_path):
    first = dict.fromkeys(counts(0, 0, 0, 0), [2] * 10 + [0] * 10)
    second = dict.fromkeys(counts(0, 0, 0, 0), [0] * 10 + [2] * 10)
    dirs = [full_run(tmp_path / "a", 0, first), full_run(tmp_path / "b", 1, second)]
    for workdir in dirs:
        split(workdir, {"easy": 12, "hard": 8})
    runs, _ = run_files.read(dirs)
    for row in groups.rows(runs, findings.cells(runs), findings.gaps(runs)):
        assert row.base == passk.Estimate(0.5, 0.5, 0.5)
        assert row.difference and row.difference.value == 0


def test_groups_without_comparisons_are_of_each_model(tmp_path):
    workdir = full_run(tmp_path / "run")
    split(workdir, {"easy": 12, "hard": 8})
    (workdir / "eval" / "comparisons.json").unlink()
    for path in workdir.glob("eval/tasks/*/base/scores.json"):
        path.unlink()
    runs, _ = run_files.read([workdir])
    found = groups.rows(runs, findings.cells(runs), findings.gaps(runs))
    assert len(found) == 2 * 2 * 2  # Decodings, k, groups.
    assert all(row.student and row.base is row.difference is None for row in found)
    report.run([workdir], tmp_path / "out")


def test_a_sweep_alone_makes_a_page(tmp_path):
    summary = make_summary()
    write_json(tmp_path / "run" / "config.json", to_dict(make_config()))
    write_json(tmp_path / "run" / "sweep" / "summary.json", summary)
    report.run([tmp_path / "run"], tmp_path / "out")
    page = page_of(tmp_path / "out")
    for line in findings_sweep.sentences(summary):
        assert line in html.unescape(page)
    figures = {path.name for path in (tmp_path / "out").glob("sweep-*.png")}
    assert figures == {f"sweep-0-{name}.png" for name, _ in heatmaps.draw_all(summary)}
    assert page.count('src="data:image/png;base64,') == len(figures)
    assert page.count("<td>") > len(summary["cells"]) and "not run" not in page


def estimate(value, width=0.1):
    return {"value": value, "low": value - width, "high": value + width}


def best(of, **fields):
    return {
        "benchmark": "tasks", "k": 1, "of": of, "among": 6, "name": f"{of} at t0.7", "bare": 0.5,
        "held_out": estimate(0.4), "simultaneous": estimate(0.5, 0.2), "p_value": None,
        "held_out_difference": None,
    } | fields  # fmt: skip


@pytest.mark.parametrize(
    ("gap", "p", "verdict"),
    [
        (estimate(0.3), 0.01, "better than the base"),
        (estimate(-0.3), 0.01, "worse than the base"),
        (estimate(0.3), 0.06, "not distinguishable from the base"),  # For the best of six.
        (estimate(0.05), 0.01, "not distinguishable from the base"),
    ],
)
def test_the_best_cell_is_never_told_bare(gap, p, verdict):
    difference = gap | {"p_value": 0.001}
    rows = [best("base"), best("students", p_value=p, held_out_difference=difference)]
    summary = {"best": rows, "tuned": [], "teff": [], "predictions": []}
    base, students = findings_sweep.sentences(summary)
    assert "best of the base's 6 cells" in base and "Against" not in base
    assert "50.0 % by its own score, [30.0, 70.0] allowing for the choice" in students
    assert "is worth 40.0 % [30.0, 50.0]" in students
    assert f"Against the base at its own decoding: {verdict}, " in students
    assert f"p {p:.3f} for the best of 6" in students


def test_errors_of_predictions_are_told_apart_by_trust():
    def row(predicted, measured, trusted):
        return {"pass_at_1": estimate(predicted), "trusted": trusted,
                "measured": measured and estimate(measured)}  # fmt: skip

    rows = [row(0.5, 0.4, True), row(0.2, 0.5, True), row(0.9, 0.1, False), row(0.9, None, True)]
    trusted, other = findings_sweep.prediction_errors(rows)
    assert "trusted: off by 20.0 points on average, 30.0 at most, of 2." in trusted
    assert "not trusted: off by 80.0 points on average, 80.0 at most, of 1." in other


def test_a_sweep_under_way_says_how_far_it_is(tmp_path):
    config = make_config()
    config.sweep.train_temperatures, config.sweep.eval_temperatures = (0.7, 1.0), (0.5, 1.0)
    write_json(tmp_path / "config.json", to_dict(config))
    for law in ("t0.5", "t1.0"):
        write_json(tmp_path / "sweep" / "cells" / "tasks" / "base" / law / "scores.json", {})
    report.run([tmp_path], tmp_path / "report")
    page = page_of(tmp_path / "report")
    assert "not finished: sweep, 2 of 6 cells" in page and "not run" not in page


def test_a_toy_alone_makes_a_page(tmp_path):
    config = Config(name="toy", stages=("toy", "report"))
    config.sampling.temperature, config.sampling.top_p = 0.9, 0.85
    main.run_stages(config, tmp_path, ["toy", "report"])
    page = " ".join(page_of(tmp_path / "report").split())
    assert "teacher at best 8.3 % at T 0.64, student at best 13.8 % at T 2.09" in page
    assert "+5.4 points at top-p 0.8" in page and "not run" not in page
    assert (tmp_path / "report" / "toy.png").exists()


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
    runs, absent = run_files.read(
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
    (run,), _ = run_files.read([full_run(tmp_path / "run")])
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
