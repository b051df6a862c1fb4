"""Stage plan: what a run needs on hardware that is not attached, into `plan/`.

Every program is compiled in a process of its own by the real compiler (`plan/worker.py`); this one
holds no device. A compile's result is kept, so a plan that was stopped goes on where it was.
"""

import pathlib
import sys
from typing import Any

import rich.box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jssd.config import Config, MeshConfig, to_dict
from jssd.model.config import ModelConfig
from jssd.plan import absent, architectures, compiles, figures, hardware, search, table

FILE = "plan.json"
_CONFIRMATIONS = 3  # Compiles that look for the number of slots, at most.


def run(config: Config, workdir: pathlib.Path) -> dict[str, Any]:
    """Compiles the programs, writes `workdir/plan/plan.json` and prints it as tables.

    Raises:
      FileNotFoundError: the model's architecture is not known.
      ValueError: no or an unknown hardware, or its compiler is not installed.
    """
    if not config.hardware:
        raise ValueError(
            f"hardware='' must say what the plan is for, e.g. --config.hardware=v5p-64. There are "
            f"{hardware.known()}."
        )
    target = hardware.parse(config.hardware)
    absent.check_compiler(target)
    cfg, _ = architectures.read(config.model, config.plan.layers)
    planner = _Planner(config, cfg, workdir / "plan")
    plan = planner.plan(target)
    compiles.write_json(workdir / "plan" / FILE, plan)
    if not (workdir / "config.json").exists():
        compiles.write_json(workdir / "config.json", to_dict(config))  # For the report.
    show(plan)
    print(f"plan: {workdir / 'plan' / FILE}", flush=True)
    return plan


class _Planner:
    """The compiles of one plan."""

    def __init__(self, config: Config, cfg: ModelConfig, folder: pathlib.Path):
        self.config, self.cfg, self.folder = config, cfg, folder
        self.mesh = config.mesh
        self.searched: list[dict[str, Any]] = []

    def plan(self, target: hardware.Hardware) -> dict[str, Any]:
        """Everything `plan.json` holds."""
        if self.config.plan.search:
            target = self.search(target)
        config, programs = self.config, {}
        for name in config.plan.programs:
            result = self.compile(target, name)
            if "complaint" not in result and name == "train":
                result |= figures.train(result, config, self.cfg, target)
            programs[name] = result
        slots = self.slots(target, programs["decode"]) if "decode" in programs else None
        whole = architectures.read(config.model)[0].num_layers
        mesh = next((r["mesh"] for n, r in programs.items() if n == "train" and "mesh" in r), None)
        return {
            "name": config.name,
            "model": config.model.path,
            "hardware": target.name,
            "kind": target.chip.kind,
            "devices": target.num_devices,
            "memory": target.memory,
            "mesh": mesh or to_dict(config)["mesh"],
            "grad_accum": config.train.grad_accum,
            "layers": {
                "compiled": self.cfg.num_layers,
                "model": whole,
                "cut": self.cfg.num_layers < whole,
            },
            "optimization": config.plan.optimization or "default",
            "fits": all("complaint" not in result for result in programs.values()),
            "programs": programs,
            "slots": slots,
            "search": self.searched,
            "assumptions": list(figures.ASSUMPTIONS),
        }

    def compile(
        self,
        target: hardware.Hardware,
        program: str,
        mesh: MeshConfig | None = None,
        slots: int = 0,
        config: Config | None = None,
    ) -> dict[str, Any]:
        """One compile, told before it runs; nothing is told of one that is kept."""
        mesh, config = mesh or self.mesh, config or self.config
        sizes = " ".join(f"{axis}={size}" for axis, size in vars(mesh).items() if size != 1)
        told = f"{program}{f' with {slots} slots' if slots else ''} for {target.name}"
        told += f", mesh {sizes}" if sizes else ", one device"
        accum = config.train.grad_accum
        told += f", grad_accum={accum}" if program == "train" and accum > 1 else ""

        def tell():
            print(f"compiling {told}", file=sys.stderr, flush=True)

        return compiles.compile_program(
            self.folder / "compiles", config, self.cfg, target, program, mesh, slots, tell
        )

    def search(self, largest: hardware.Hardware) -> hardware.Hardware:
        """The smallest hardware up to `largest` on which training fits; sets the best mesh."""

        def train(target, mesh, grad_accum):
            config = search.accumulating(self.config, grad_accum)
            result = self.compile(target, "train", mesh, config=config)
            if "complaint" not in result:
                result |= figures.train(result, config, self.cfg, target)
            kept = ("memory", "times", "rates", "complaint")
            entry = {name: result[name] for name in kept if name in result}
            where = {"hardware": target.name, "mesh": dict(vars(mesh)), "grad_accum": grad_accum}
            self.searched.append({**where, **entry})
            return result

        sizes = hardware.up_to(largest)
        found = search.smallest(self.config, self.cfg, sizes, train)
        if found is None:
            raise ValueError(
                f"plan.search: no mesh of {sizes[0].name} up to {largest.name} fits"
                + self._reasons(sizes)
            )
        target, fitting = found
        self.mesh, grad_accum = search.best(fitting)
        self.config = search.accumulating(self.config, grad_accum)
        return target

    def _reasons(self, sizes: list[hardware.Hardware]) -> str:
        """Why nothing was found: the last compile's complaint, and what was not worth one."""
        tried = {entry["hardware"] for entry in self.searched}
        untried = [size.name for size in sizes if size.name not in tried]
        why = ""
        if self.searched:
            last = self.searched[-1]
            sizes_of = [f"{axis} {size}" for axis, size in last["mesh"].items() if size != 1]
            mesh = " x ".join(sizes_of) or "one device"
            if last["grad_accum"] > 1:
                mesh += f", grad_accum {last['grad_accum']}"
            told = last["complaint"]["text"].rstrip(".")
            why += f"; on {last['hardware']} the last one ({mesh}): {told}"
        if untried:
            why += (
                f"; on {', '.join(untried)} weights, optimizer and layers' inputs are too large in "
                "every mesh that divides the batch and the model"
            )
        return why + (". Name larger hardware, or change the batch, seq_len or remat.")

    def slots(self, target: hardware.Hardware, first: dict[str, Any]) -> dict[str, Any] | None:
        """How many slots fit: arithmetic from the first compile, then one that confirms it."""
        if "slot_bytes" not in first or "memory" not in first:
            return None
        if "complaint" not in first:
            first |= figures.decode(first, self.config, self.cfg, target, first["slots"])
        result, slots, tried = first, first["slots"], {}
        for _ in range(_CONFIRMATIONS):
            slots = figures.room(result, target, slots)
            if slots in tried or not slots:
                break
            if slots == first["slots"] and not self.config.engine.cache_tokens:
                tried[slots] = result = first
            else:
                tried[slots] = result = self.compile(target, "decode", slots=slots)
            if "complaint" not in result or "memory" not in result:
                break
        good = [slots for slots, result in tried.items() if "complaint" not in result]
        if not good:
            lengths = figures.by_length(first, self.config, target, first["slots"])
            return {"how": "by arithmetic, not compiled", "most": 0, "by_length": lengths}
        most = max(good)
        lengths = figures.by_length(tried[most], self.config, target, most)
        lengths[next(iter(lengths))] = most
        best = figures.decode(tried[most], self.config, self.cfg, target, most)
        how = "the longest compiled, shorter ones by arithmetic"
        return {"how": how, "most": most, "by_length": lengths, **best}


def show(plan: dict[str, Any]) -> None:
    """Prints a plan; plain aligned text where there is no terminal."""
    if sys.stdout.isatty():
        console, box = Console(), rich.box.SIMPLE_HEAD
    else:
        console, box = Console(width=160, color_system=None), None
    console.print(Text(table.headline(plan)))
    for line in (*table.complaints(plan), *table.notes(plan)):
        console.print(Text(line))
    for made in table.tables(plan):
        console.print()
        console.print(Text(made.title))
        grid = Table(*made.heads, box=box, pad_edge=box is not None)
        for row in made.rows:
            grid.add_row(*map(Text, row))
        console.print(grid)
    console.print()
    console.print(Text("assumed: " + "; ".join(plan["assumptions"]) + "."))
