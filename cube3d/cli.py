"""The command line: ``cube3d data | train | search | evaluate | report | ask | export``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube3d.config import Settings, load_settings
from cube3d.data.command import add_commands as add_data_commands
from cube3d.errors import UserError
from cube_kernels import BackendError

if TYPE_CHECKING:
    from cube3d.answer import Answerer
    from cube3d.experiments.plan import SomePlan

# Each command imports what it needs when it runs: transformers takes seconds.


def _train(options: argparse.Namespace) -> None:
    from cube3d import run as runs

    if options.resume:
        run = runs.load(options.out)
        if options.config or options.overrides:
            _require_same(run.settings, load_settings(options.config, options.overrides), options.out)
    else:
        run = runs.start(options.out, load_settings(options.config, options.overrides))
    runs.train(run)
    if os.environ.get("RANK", "0") == "0":  # of those that torchrun starts, one speaks
        print(f"trained: {run.model_folder}; next: cube3d evaluate {options.out}")


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _require_same(saved: Settings, given: Settings, folder: Path) -> None:
    new = dict(_flat(given.model_dump()))
    differing = [name for name, value in _flat(saved.model_dump()) if value != new[name]]
    if differing:
        raise UserError(f"{folder}: its checkpoints are of another configuration: {', '.join(differing)} differ")


def _evaluate(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.evaluate import evaluate, table
    from cube3d.report import write_report

    run = runs.load(options.run)
    results = evaluate(run.model, run.parts, run.settings, run.baselines_folder)
    run.save_results("metrics", results)
    print(table(results))
    print(f"report: {write_report(run)}")


def _report(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.report import write_report

    print(write_report(runs.load(options.run)))


def _ask(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.answer import Answerer, read_questions

    if options.question is not None and options.file is not None:
        raise UserError("give a question or --file, not both")
    questions = None if options.file is None else read_questions(options.file)
    if options.question is not None:
        questions = [options.question]
    answerer = Answerer(runs.load(options.run), options.bank)
    # What is not an answer goes to stderr, so that the answers can be piped on.
    print(f"{len(answerer)} answers to choose from; exact search by {answerer.search.name}", file=sys.stderr)
    if questions is None:
        _prompt(answerer, options)
    else:
        _print_answers(answerer, questions, options)


def _prompt(answerer: Answerer, options: argparse.Namespace) -> None:
    """Answers one line after the other until the input ends; a bad one is said and does not end it."""
    from cube3d.answer import decoded

    while True:
        if sys.stdin.isatty():
            print("? ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        try:
            _print_answers(answerer, [decoded(line)], options)
        except UserError as error:
            print(f"cube3d: {error}", file=sys.stderr)


def _print_answers(answerer: Answerer, questions: Sequence[str], options: argparse.Namespace) -> None:
    for question, answers in zip(questions, answerer.answer(questions, options.count), strict=True):
        if options.json:
            record = {"question": question, "answers": [asdict(answer) for answer in answers]}
            print(json.dumps(record, ensure_ascii=False), flush=True)
            continue
        if options.file is not None:
            print(question)
        for answer in answers:
            print(f"{answer.score:.3f}  {answer.text}", flush=True)


def _search(options: argparse.Namespace) -> None:
    try:
        from cube3d.experiments.search import SearchPlan, search
    except ModuleNotFoundError as error:
        raise UserError(f"search needs {error.name}: pip install 'cube-kernels[search]'") from error
    from cube3d.experiments.variants import describe

    base, plan = _begun(options, SearchPlan)
    winner = search(options.out, base, plan)
    print(f"best: {describe(winner['changes'])}  {plan.metric} {winner['score']:.4f} on validation")
    print(f"its results on the test part: {options.out / 'winner.json'}")


def _begun(options: argparse.Namespace, kind: type[SomePlan]) -> tuple[Settings, SomePlan]:
    """The base and the plan of a new search or ablation, or of the one that is resumed."""
    from cube3d.experiments.plan import load_plan, read_plan, require_new

    if options.resume:
        if options.plan or options.config or options.overrides:
            raise UserError("--resume goes on with the folder's own plan and configuration; give --out alone")
        return load_plan(options.out, kind)
    if options.plan is None:
        raise UserError("--plan is missing: a YAML file that says what to vary")
    require_new(options.out)
    return load_settings(options.config, options.overrides), read_plan(options.plan, kind)


def _export(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.export import export

    export(runs.load(options.run), options.folder)
    print(f"exported: SentenceTransformer({str(options.folder)!r}, trust_remote_code=True) loads it")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cube3d", description="Train a 3D lattice to carry questions to answers.")
    names = "data | train | search | evaluate | report | ask | export"
    commands = parser.add_subparsers(required=True, dest="name", metavar=names)

    add_data_commands(commands)

    train = commands.add_parser("train", help="train a cube and audit the run")
    train.add_argument("--config", type=Path, help="YAML file; the defaults without")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    train.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as cube.steps=8")
    train.set_defaults(command=_train)

    search = commands.add_parser("search", help="train many points of a space, choose by validation, test the winner")
    _add_plan(search)
    search.set_defaults(command=_search)

    evaluate = commands.add_parser("evaluate", help="measure the cube and its baselines; table, JSON and report")
    evaluate.add_argument("run", type=Path)
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="write report.html anew")
    report.add_argument("run", type=Path)
    report.set_defaults(command=_report)

    ask = commands.add_parser("ask", help="the best answers to a question")
    ask.add_argument("run", type=Path)
    ask.add_argument("question", nargs="?", help="without one, a question a line from the standard input")
    ask.add_argument("--file", type=Path, help="a question a line, answered in one batch")
    ask.add_argument("--bank", type=Path, help="file of pairs whose answers to choose from; the run's own without")
    ask.add_argument("--json", action="store_true", help="an object a question, one a line")
    ask.add_argument("--count", type=_positive, default=3, help="how many answers (3)")
    ask.set_defaults(command=_ask)

    export = commands.add_parser("export", help="write a model that sentence-transformers loads without cube3d")
    export.add_argument("run", type=Path)
    export.add_argument("folder", type=Path)
    export.set_defaults(command=_export)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, help="YAML file: what to vary")
    parser.add_argument("--config", type=Path, help="YAML file of the base configuration; the defaults without")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on where the folder's search or ablation stopped")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of the base, such as cube.steps=8")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's error is one message on stderr and exit status 2, an interrupt 130."""
    options = _parser().parse_args(arguments)
    # Read when transformers is imported: its bars and notices would drown the run's own lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bar of GGUF files listens to nothing else
    try:
        options.command(options)
    except (UserError, BackendError) as error:
        print(f"cube3d: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = f"; `cube3d {options.name} --resume --out {options.out}` goes on" if "resume" in options else ""
        print(f"cube3d: interrupted{hint}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
