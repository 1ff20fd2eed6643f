"""The command line: ``cube3d data | train | search | ablate | evaluate | report | ask | embed | export``."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cube3d.config import Settings, load_settings
from cube3d.dataset.command import add_commands as add_data_commands
from cube3d.errors import UserError, is_interrupt
from cube3d.files import holds_something
from cube3d.hints import command
from cube_kernels import BackendError

if TYPE_CHECKING:
    from cube3d.answering.answer import Reader
    from cube3d.experiments.plan import SomePlan

RESUMABLE = {"train": "config.yaml", "search": "plan.yaml", "ablate": "plan.yaml", "evaluate": None, "embed": None}
"""Commands whose work goes on where it was interrupted, and the file in ``--out`` that ``--resume`` needs for it; with
None the same command does it."""

# Each command imports what it needs when it runs: transformers takes seconds.


def _train(options: argparse.Namespace) -> None:
    if options.seeds is None:
        _train_one(options.out, options.config, options.overrides, options.resume)
    else:
        _train_seeds(options)
    _part()


def _part() -> None:
    """Of the processes that torchrun started, at the end. Gloo's threads hold Python objects: an interpreter that ends
    before they do aborts. After an error they stay, since the others may be waiting in a collective operation."""
    from accelerate import PartialState

    PartialState().destroy_process_group()


def _speaks() -> bool:
    """Of those that torchrun starts, one speaks."""
    return os.environ.get("RANK", "0") == "0"


def _says_what_next() -> bool:
    """Of those on a host, one: several hosts have a command each."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _train_seeds(options: argparse.Namespace) -> None:
    if any(override.startswith("seed=") for override in options.overrides):
        raise UserError("--seeds and seed= are two ways to say it; give one")
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        # An interrupt left some seeds done, one begun and the others not there.
        resume = options.resume and holds_something(folder)
        _train_one(folder, options.config, [*options.overrides, f"seed={seed}"], resume)


def _train_one(folder: Path, config: Path | None, overrides: Sequence[str], resume: bool) -> None:
    from cube3d.run import fit

    own = resume and not (config or overrides)
    run = fit(folder, None if own else load_settings(config, overrides), resume=resume)
    if _says_what_next():
        print(f"trained: {run.model_folder}; next: {command('evaluate', folder)}")


def _evaluate(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.evaluation.evaluate import evaluate, require_same_configuration, summarize
    from cube3d.report import terminal, write_report

    opened = [runs.load(folder) for folder in options.runs]
    require_same_configuration(opened)
    evaluations = []
    for run in opened:
        evaluations.append(evaluate(run))
        if _speaks():
            print(f"report: {write_report([run], run.report_file)}")
    if _speaks():
        print(terminal(summarize(evaluations)))
    _part()


def _report(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.report import write_report

    opened = [runs.load(folder) for folder in options.runs]
    if options.out is None and len(opened) > 1:
        raise UserError("a report of several runs needs a name: --out FILE")
    print(write_report(opened, options.out or opened[0].report_file))


def _ask(options: argparse.Namespace) -> None:
    from cube3d.answering.answer import Reader, read_questions

    if options.question is not None and options.file is not None:
        raise UserError("give a question or --file, not both")
    questions = None if options.file is None else read_questions(options.file)
    if options.question is not None:
        questions = [options.question]
    reader = Reader(options.run, options.bank)
    # What is not an answer goes to stderr, so that the answers can be piped on.
    print(f"{len(reader)} answers to choose from; exact search by {reader.search.name}", file=sys.stderr)
    if questions is None:
        _prompt(reader, options)
    else:
        _print_answers(reader, questions, options)


def _prompt(reader: Reader, options: argparse.Namespace) -> None:
    """Answers one line after the other until the input ends; a bad one is said and does not end it."""
    from cube3d.answering.answer import decoded

    while True:
        if sys.stdin.isatty():
            print("? ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        try:
            _print_answers(reader, [decoded(line)], options)
        except UserError as error:
            print(f"cube3d: {error}", file=sys.stderr)


def _print_answers(reader: Reader, questions: Sequence[str], options: argparse.Namespace) -> None:
    for question, answers in zip(questions, reader.answer(questions, options.count), strict=True):
        if options.json:
            record = {"question": question, "answers": [asdict(answer) for answer in answers]}
            sys.stdout.buffer.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")  # JSON is UTF-8
            sys.stdout.buffer.flush()
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
    winner = search(options.out, base, plan, storage=options.storage, alone=options.alone)
    print(f"best: {describe(winner['changes'])}  {plan.metric} {winner['score']:.4f} on validation")
    if "test" in winner:
        print(f"its results on the test part: {options.out / 'winner.json'}")


def _ablate(options: argparse.Namespace) -> None:
    from cube3d.experiments.ablation import AblationPlan, ablate

    ablate(options.out, *_begun(options, AblationPlan))
    print(f"table and pictures: {options.out}")


def _begun(options: argparse.Namespace, kind: type[SomePlan]) -> tuple[Settings, SomePlan]:
    """The base and the plan of a new search or ablation, or of the one that is resumed."""
    from cube3d.experiments.plan import load_plan, read_plan, require_new

    if options.resume:
        if options.plan or options.config or options.overrides:
            raise UserError("--resume goes on with the folder's own plan and configuration; give --out alone")
        return load_plan(options.out, kind)
    if options.plan is None:
        raise UserError("--plan is missing: a YAML file that says what to vary")
    base = load_settings(options.config, options.overrides)
    require_new(options.out, base)
    return base, read_plan(options.plan, kind)


def _embed(options: argparse.Namespace) -> None:
    from cube3d import run as runs
    from cube3d.answering.embed import embed

    run = runs.load(options.run)
    cut = embed(run, options.texts, options.out)
    if cut:
        longest = run.settings.reader.max_length
        print(f"texts of more than {longest} tokens (reader.max_length), cut off there: {cut}", file=sys.stderr)


def _export(options: argparse.Namespace) -> None:
    from cube3d import run as runs

    run, target = runs.load(options.run), options.target
    if target.suffix == ".onnx":
        from cube3d.export.onnx import export_onnx

        export_onnx(run, target)
        print(f"exported: {target}, and the tokenizer beside it")
        return
    from cube3d.export import ROUTES, export

    kind = export(run, target, options.reader_only)
    print(f"exported: {ROUTES[kind]}; SentenceTransformer({str(target)!r}, trust_remote_code=True) loads it")


class _Once(argparse.Action):
    """Stores the value of an option that is given once."""

    given: Any = None

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        if self.option_strings and self.given is not None:
            raise argparse.ArgumentError(self, f"given twice, as {self.given} and {values}; give one")
        self.given = values
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """Refuses an option that is given twice; argparse would take the last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="cube3d", description="Train a 3D lattice to carry questions to answers.")
    names = "data | train | search | ablate | evaluate | report | ask | embed | export"
    commands = parser.add_subparsers(required=True, dest="name", metavar=names)

    add_data_commands(commands)

    train = commands.add_parser("train", help="train a cube and audit the run")
    train.add_argument("--config", type=Path, help="YAML file; the defaults without")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--resume", action="store_true", help="go on from the folder's last checkpoint")
    train.add_argument("--seeds", type=_seeds, help="one run for each, such as 0,1,2, in OUT/seed-0 and so on")
    train.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as cube.steps=8")
    train.set_defaults(command=_train)

    search = commands.add_parser("search", help="train many points of a space, choose by validation, test the winner")
    _add_plan(search)
    search.add_argument(
        "--storage",
        help="share the search with other workers: URL of a database (postgresql+psycopg://..., sqlite:///...) or a "
        "file .journal",
    )
    search.add_argument(
        "--alone", action="store_true", help="no other worker is at work: take over what killed ones had begun"
    )
    search.set_defaults(command=_search)

    ablate = commands.add_parser("ablate", help="train one change at a time from a base; paired differences")
    _add_plan(ablate)
    ablate.set_defaults(command=_ablate)

    evaluate = commands.add_parser("evaluate", help="measure the cube and its baselines; table, JSON and report")
    evaluate.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders that differ in the seed alone")
    evaluate.set_defaults(command=_evaluate)

    report = commands.add_parser("report", help="write the report of one run, or of several seeds together")
    report.add_argument("runs", type=Path, nargs="+", metavar="run", help="folders that differ in the seed alone")
    report.add_argument("--out", type=Path, help="a page (.html; report.html in the run's folder) or tables (.md)")
    report.set_defaults(command=_report)

    ask = commands.add_parser("ask", help="the best answers to a question")
    ask.add_argument("run", type=Path)
    ask.add_argument("question", nargs="?", help="without one, a question a line from the standard input")
    ask.add_argument("--file", type=Path, help="a question a line, answered in one batch")
    ask.add_argument("--bank", type=Path, help="file of pairs whose answers to choose from; the run's own without")
    ask.add_argument("--json", action="store_true", help="an object a question, one a line")
    ask.add_argument("--count", type=_positive, default=3, help="how many answers (3)")
    ask.set_defaults(command=_ask)

    embed = commands.add_parser("embed", help="the vectors of many texts")
    embed.add_argument("run", type=Path)
    embed.add_argument("texts", type=_texts, nargs="?", help="lines, or .jsonl with a 'text'; without: standard input")
    embed.add_argument("--out", type=Path, help=".npy or .jsonl; JSONL on the standard output without")
    embed.set_defaults(command=_embed)

    export = commands.add_parser("export", help="write a model that sentence-transformers or ONNX runtimes load")
    export.add_argument("run", type=Path)
    export.add_argument("target", type=Path, help="a folder for sentence-transformers, or a file .onnx of a reader")
    export.add_argument("--reader-only", action="store_true", help="leave the teacher out of the folder")
    export.set_defaults(command=_export)
    return parser


def _add_plan(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, help="YAML file: what to vary")
    parser.add_argument("--config", type=Path, help="YAML file of the base configuration; the defaults without")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="go on where the folder's search or ablation stopped")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of the base, such as cube.steps=8")


def _texts(name: str) -> Path | None:
    return None if name == "-" else Path(name)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _seeds(text: str) -> list[int]:
    seeds = text.split(",")
    if not all(seed.isdecimal() for seed in seeds) or len({int(seed) for seed in seeds}) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different seeds such as 0,1,2")
    return [int(seed) for seed in seeds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's error is one message on stderr and exit status 2, an interrupt 130, an output that
    nobody reads any more 141."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    # Read when transformers is imported: its bars and notices would drown the run's own lines.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bar of GGUF files listens to nothing else
    if isinstance(sys.stdout, io.TextIOWrapper):  # a letter that the terminal does not have is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        options.command(options)
    except (Exception, KeyboardInterrupt) as error:
        return _status(error, options, given)
    return 0


def _status(error: BaseException, options: argparse.Namespace, given: Sequence[str]) -> int:
    """Says why a command ended; what only a developer can mend is raised."""
    if is_interrupt(error):
        _say_how_to_go_on("interrupted", options, given)
        return 130
    if isinstance(error, UserError | BackendError):
        print(f"cube3d: {error}", file=sys.stderr)
        return 2
    if not isinstance(error, OSError) or error.filename is not None or error.errno not in (errno.EPIPE, errno.ENOSPC):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or what is buffered would fail once more
    if error.errno == errno.ENOSPC:
        print(f"cube3d: the output cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    if _goes_on(options, given):  # others end as any program does whose output `head` reads
        _say_how_to_go_on("nobody reads the output any more", options, given)
    return 141


def _say_how_to_go_on(why: str, options: argparse.Namespace, given: Sequence[str]) -> None:
    if not _says_what_next():
        return
    hint = _goes_on(options, given)
    if hint:
        why += f"; `{hint}` goes on"
    elif options.name in RESUMABLE:
        why += "; the same command begins again"
    with suppress(BrokenPipeError):
        print(f"cube3d: {why}", file=sys.stderr, flush=True)


def _goes_on(options: argparse.Namespace, given: Sequence[str]) -> str | None:
    """The command that goes on where this one stopped; the same one where nothing was written yet; None where nothing
    is kept."""
    if options.name not in RESUMABLE:
        return None
    if options.name == "embed" and not (options.out and options.texts and options.texts.is_file()):
        return None  # a pipe cannot be read again, nor what was written to one be taken back
    begun = RESUMABLE[options.name]
    if begun is not None and (options.out / begun).exists():
        shared = ("--storage", options.storage) if getattr(options, "storage", None) else ()
        return command(options.name, "--resume", "--out", options.out, *shared)
    if getattr(options, "seeds", None) is not None and not options.resume:
        return command(options.name, "--resume", *given[1:])
    return command(*given)
