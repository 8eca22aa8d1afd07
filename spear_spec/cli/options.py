"""Arguments of every command. Nothing heavy is imported: a wrong option is refused at once."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

from spear_spec.errors import ConfigError

LATER: dict[str, str] = {}
COMPLETE: dict[str, bool | str] = {"on": True, "stream": "stream", "off": False}  # as `TTS.stream` has it


class Parser(argparse.ArgumentParser):
    """One clear line and exit status 2 for bad arguments; no abbreviated options."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")

    def format_help(self) -> str:
        """With the names of drafters and rules, which are looked up only here: that takes importing torch."""
        named = {action.dest: action for action in self._actions if action.dest in _NAMES}
        for action in named.values():
            action.help = _NAMES[action.dest]()
        return super().format_help()


def _drafters() -> str:
    from spear_spec.decoding import DRAFTERS

    return f"who drafts (none: plain autoregressive decoding): {' '.join(DRAFTERS)}"


def _rules() -> str:
    from spear_spec.decoding import VERIFIERS

    exact, lossy = (
        " ".join(name for name, kind in VERIFIERS.items() if kind.lossless is wanted) for wanted in (True, False)
    )
    return f"the acceptance rule: {exact}; lossy: {lossy}"


def _paths() -> str:
    from spear_spec.decoding import DRAFTERS

    return f"paths of the drafter {' or '.join(name for name, kind in DRAFTERS.items() if kind.paths)}"


_NAMES = {"drafter": _drafters, "verifier": _rules, "num_drafts": _paths}  # help that names what there is


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} does not lie in {least} to {most}")
        return value

    return read


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition(":")
    read = _whole(1, 10_000)
    least, most = read(low), read(high or low)
    if least > most:
        raise argparse.ArgumentTypeError(f"{text!r} is not MIN:MAX")
    return least, most


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def _batches(text: str) -> list[int]:
    return [_whole(1, 64)(part) for part in text.split(",")]


def _assignment(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    for read in (json.loads, float):  # .5 is a number too, though not JSON's
        try:
            return key, read(value)
        except ValueError:
            continue
    return key, value


def _pauses(text: str) -> list[float]:
    return [_number(part) for part in text.split(",")]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _machine(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Which voice, and where it runs."""
    voice = parser.add_argument_group("voice and machine")
    voice.add_argument("--voice", metavar="NAME|FOLDER", help="an installed voice or a voice folder")
    voice.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 (default: cuda if there is one)")
    voice.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16", "float64"),
        help="of the T2S transformer (default float32)",
    )
    # one by default: two beside another busy process can be many times slower, and the audio depends on the number
    voice.add_argument("--threads", type=_whole(1, 1024), default=1, metavar="N", help="CPU threads (default 1)")
    return voice


def _common(parser: argparse.ArgumentParser, *, batches: bool = False, speculation: bool = True) -> None:
    """The flags that every speaking command shares; what is left out comes from the voice."""
    voice = _machine(parser)
    voice.add_argument("--speaker", metavar="NAME", help="a speaker of the voice")
    if speculation:
        _speculation(parser)
    else:
        parser.set_defaults(drafter=None, verifier=None, gamma=None, num_drafts=None, tree=None, options=[])
    law = parser.add_argument_group("sampling")
    law.add_argument("--temperature", type=_number, metavar="T", help="0 is greedy")
    law.add_argument("--top-k", type=_whole(0, 10**6), metavar="K", help="0 is off")
    law.add_argument("--top-p", type=_number, metavar="P", help="1 is off")
    law.add_argument("--guidance", type=_number, metavar="G", help="weight of the text against none; 1 is off")
    law.add_argument(
        "--seed", type=_whole(0, 2**64 - 1), default=0, metavar="N", help="same seed, same audio (default 0)"
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--batch",
        type=_batches if batches else _whole(1, 64),
        metavar="N[,N...]" if batches else "N",
        help="sentences decoded together",
    )
    run.add_argument(
        "--max-tokens", type=_whole(1, 10**5), metavar="N", help="cap on the semantic tokens of a sentence"
    )
    run.add_argument(
        "--json", metavar="FILE", help="--json: the result as the last line of standard output; --json=FILE: to a file"
    )


def _reading(parser: argparse.ArgumentParser, *, ssml: bool = True) -> None:
    reading = parser.add_argument_group("reading")
    reading.add_argument(
        "--pause",
        type=_pauses,
        metavar="S[,P]",
        help="seconds of silence between sentences, and between paragraphs (default .1,.4)",
    )
    reading.add_argument(
        "--lexicon", metavar="FILE", help="how words are spoken: word<TAB>/ipa/ or a respelling; JSON; PLS"
    )
    if ssml:
        reading.add_argument("--ssml", action="store_true", help="the text is SSML (docs/reading.md)")


def _speed(text: str) -> float:
    value = _number(text)
    if not 0.25 <= value <= 4:
        raise argparse.ArgumentTypeError(f"{text} does not lie in .25 to 4")
    return value


def _takes(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--best-of", type=_whole(1, 64), default=1, metavar="N", help="speak each sentence N times and keep the best"
    )
    parser.add_argument(
        "--judge",
        metavar="NAME",
        help="of --best-of: mos (default where distillmos is installed), likelihood, or one of an installed package",
    )


def _whose(say: argparse.ArgumentParser) -> None:
    whose = say.add_argument_group("prompts and takes (docs/prompts.md)")
    whose.add_argument(
        "--voice-prompt",
        metavar="FILE",
        help="speak with the voice in this recording: 1 s of speech or more, 3 s are good",
    )
    _takes(whose)
    whose.add_argument(
        "--provenance",
        choices=("on", "off"),
        help="the file says that it is synthetic speech, by whom, after which prompt (default: on with a prompt)",
    )


def _complete(parser: argparse.ArgumentParser, default: str = "off") -> None:
    auto = default == "auto"
    parser.add_argument(
        "--complete",
        choices=("auto", *COMPLETE) if auto else tuple(COMPLETE),
        default=default,
        help="on: a sentence that leaves out words is drawn again; it is heard when it is settled. stream: it is heard "
        "while it is written, and decoding goes back to what is settled where words are missing. "
        + ("auto: where the voice says that it helps, stream if sound is heard while it is made, else on. " * auto)
        + f"off: neither (default {default})",
    )


def _untuned(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--untuned",
        action="store_true",
        help="without what `spear-spec tune` found for this machine: as the voice ships",
    )


def _beam(parser: argparse.ArgumentParser) -> None:
    beam = parser.add_argument_group("beam search", "in place of drawing: no sample of the voice's law, and no drafts")
    beam.add_argument("--beam", type=_whole(1, 4096), metavar="N", help="the likeliest tokens that a beam of N finds")
    beam.add_argument(
        "--length-penalty", type=_number, metavar="A", help="0 to 10; higher favours longer sentences (default .6)"
    )


def _how_fast(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="X",
        help=".25 to 4 times the voice's own speed, at the same pitch (default 1)",
    )


def _acoustic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--acoustic",
        metavar="NAME|FOLDER",
        help="speak through another acoustic stage than the voice's own: a folder of one (docs/audiolm.md)",
    )


def _bulk(parser: argparse.ArgumentParser) -> None:
    bulk = parser.add_argument_group(
        "bulk",
        "with --file big.jsonl, --workers or --ray: shards and a manifest in --out-dir; the same call again goes on",
    )
    bulk.add_argument("--workers", type=_whole(1, 1024), metavar="N", help="processes or actors (default: CPUs)")
    bulk.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS", help="on a Ray cluster; alone: one of this machine"
    )
    bulk.add_argument("--format", choices=("wav", "flac"), default="wav", help="of the files (default wav)")
    bulk.add_argument(
        "--shard-format", choices=("files", "tar"), default="files", help="a file a line, or a tar file a shard"
    )
    bulk.add_argument("--shard-lines", type=_whole(1, 10**6), default=64, metavar="N", help="(default 64)")


def _runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime",
        choices=("eager", "graphs", "auto"),
        default="eager",
        help="who runs the transformer: eager (default); graphs: CUDA graphs of whole rounds; auto: graphs where they "
        "can be",
    )


def _speculation(parser: argparse.ArgumentParser) -> None:
    """The fields of `SpecConfig`."""
    spec = parser.add_argument_group("speculation")
    spec.add_argument("--drafter", metavar="NAME")
    spec.add_argument("--verifier", metavar="NAME")
    spec.add_argument("--gamma", type=_whole(1, 64), metavar="N", help="draft length")
    spec.add_argument("--num-drafts", type=_whole(1, 64), metavar="K")
    spec.add_argument("--tree", metavar="NAME", help="draft tree: dynamic, or children by depth such as 4-2-1-1")
    spec.add_argument(
        "--set",
        type=_assignment,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="options",
        help="an option of the drafter or verifier; may be repeated",
    )


def _serve(serve: argparse.ArgumentParser) -> None:
    address = serve.add_argument_group("address")
    address.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1: this machine alone)")
    address.add_argument("--port", type=_whole(0, 65535), default=8880, metavar="N", help="default 8880; 0: a free one")
    address.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages of this site may call; may be repeated (default: none)",
    )
    address.add_argument(
        "--api-key-file", metavar="FILE", help="keys, one a line; $SPEAR_SPEC_API_KEYS, with commas, works too"
    )
    voice = _machine(serve)
    serve.add_argument(
        "--voice-name",
        type=_assignment,
        action="append",
        default=[],
        metavar="NAME=SPEAKER",
        dest="voice_names",
        help="another name of a speaker or prompt, NAME=SPEAKER; may be repeated",
    )
    voice.add_argument(
        "--prompts", metavar="FOLDER", help="recordings of speech: each is one more voice, by its file's name"
    )
    _reading(serve, ssml=False)  # which a request asks for
    _acoustic(serve)
    _speculation(serve)
    _untuned(serve)
    _complete(serve)
    _takes(serve)
    _runtime(serve)
    limits = serve.add_argument_group("limits: beyond them requests are refused")
    for flag, low, high, usual, what in (
        ("characters", 1, 10**7, 4096, "characters of a text"),
        ("body-bytes", 1024, 2**30, 256 * 1024, "bytes of a request's body"),
        ("queue", 1, 4096, None, "requests that wait for their first sound"),
        ("streams", 1, 4096, None, "listeners at a time"),
        ("rows", 1, 4096, None, "sentences decoded together"),
    ):
        limits.add_argument(f"--max-{flag}", type=_whole(low, high), default=usual, metavar="N", help=f"most {what}")
    limits.add_argument("--max-seconds", type=_number, metavar="S", help="most seconds of speech of a request")
    limits.add_argument(
        "--stall-s", type=_number, default=30.0, metavar="S", help="a client that takes nothing so long is cut off"
    )
    limits.add_argument(
        "--drain-s",
        type=_number,
        default=30.0,
        metavar="S",
        help="at the end, what is being spoken has so long (default 30)",
    )
    serve.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="replicas on a Ray cluster; alone: one of this machine",
    )
    serve.add_argument(
        "--replicas",
        type=_range,
        default=(1, 1),
        metavar="MIN:MAX",
        help="with --ray: how many, by the requests there are",
    )
    serve.add_argument("--log-text", action="store_true", help="write what is said into the log as well")
    # what other commands have flags for
    serve.set_defaults(speaker=None, temperature=None, top_k=None, top_p=None, guidance=None)


def _voices(commands: Any) -> None:
    voices = commands.add_parser("voices", help="what is installed; pull, push and remove voices")
    voices.add_argument("--json", metavar="FILE", help="--json: to standard output; --json=FILE: to a file")
    actions = voices.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    where = "OWNER/NAME of the Hugging Face hub ([hub] extra), or a folder's path"
    made = {
        name: actions.add_parser(name, help=text)
        for name, text in (
            ("list", "what is installed (the same without an action)"),
            ("show", "licence, origin, speakers and parts of one"),
            ("pull", "fetch one, check it and install it"),
            ("push", "bring one to the hub or a folder, with a model card"),
            ("remove", "delete one that was pulled"),
        )
    }
    for parser in made.values():  # behind the action too
        parser.add_argument("--json", metavar="FILE", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    made["show"].add_argument("voice", metavar="VOICE", help=f"the name of an installed one, {where}")
    made["pull"].add_argument("source", metavar="FROM", help=where)
    made["pull"].add_argument("--as", dest="name", metavar="NAME", help="install it under this name")
    made["push"].add_argument("voice", metavar="VOICE", help="the name of an installed one, or a folder's path")
    made["push"].add_argument("target", metavar="TO", help=where)
    made["push"].add_argument("--public", action="store_true", help="a new repository is public (default: private)")
    made["push"].add_argument("--message", metavar="TEXT", help="of the commit")
    made["remove"].add_argument("voice", metavar="NAME", help="an installed voice; the one that ships stays")
    for name in ("show", "pull", "push"):
        made[name].add_argument("--revision", metavar="NAME", help="branch, tag or commit of the hub's repository")
    for name in ("pull", "push"):
        made[name].add_argument("--force", action="store_true", help="in place of a voice that is there")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(prog="spear-spec", description="Text to speech with exact speculative sampling.")
    parser.add_argument("--version", action="store_true", help="print the version and leave")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)

    say = commands.add_parser("say", help="speak a text, every line of a file, or a book")
    say.add_argument("text", nargs="?", help="what to say; - reads standard input")
    say.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="wav, flac, mp3, opus, m4a (default out.wav), - writes wav to standard output; of a book also m4b",
    )
    say.add_argument(
        "--file",
        metavar="FILE",
        help="with -o a book (txt, md, epub); with --out-dir one text a line, - reads standard input",
    )
    say.add_argument("--play", action="store_true", help="play it while it is spoken, on the default sound device")
    say.add_argument("--out-dir", metavar="FOLDER", help="with --file: FOLDER/000.wav, 001.wav, ...")
    _bulk(say)
    _untuned(say)
    _reading(say)
    _whose(say)
    _complete(say, default="auto")
    say.add_argument(
        "--timestamps",
        metavar="FILE",
        help="when each word is heard, as .json, .srt or .vtt; with --file only the ending: one file beside each sound",
    )
    _common(say)
    _beam(say)
    _how_fast(say)
    _acoustic(say)
    _runtime(say)

    bench = commands.add_parser("bench", help="autoregressive and speculative decoding, measured in one run")
    bench.add_argument("--drafters", type=_names, metavar="NAMES", help="all, or names with commas")
    bench.add_argument(
        "--gammas", type=_batches, metavar="N[,N...]", help="draft lengths to measure for the named drafters"
    )
    bench.add_argument("--text", metavar="FILE", help="sentences to speak, one a line")
    bench.add_argument("--runs", type=_whole(1, 1000), default=5, metavar="N", help="measured repetitions (default 5)")
    bench.add_argument(
        "--judges",
        type=_names,
        metavar="NAMES",
        help="judge every setting as well: wer, cer, mos, per, speaker_similarity (needs the [eval] extra)",
    )
    bench.add_argument(
        "--judge-text", metavar="FILE", help="sentences for the judges, one a line (default: those of --text)"
    )
    bench.add_argument("--sentences", type=_whole(1, 10**6), metavar="N", help="judge only the first N")
    bench.add_argument("--table", metavar="FILE", help="the markdown table to a file instead of standard error")
    bench.add_argument("--plot", metavar="FILE", help="a picture of the result (needs the [eval] extra)")
    _common(bench, batches=True)
    _runtime(bench)

    verify = commands.add_parser("verify", help="is this drafter and verifier exact on this voice?")
    verify.add_argument("--text", metavar="FILE", help="sentences to speak, one a line")
    verify.add_argument("--samples", type=_whole(1, 10**7), metavar="N", help="tokens to test")
    _complete(verify)
    _common(verify)
    _runtime(verify)

    evaluate = commands.add_parser(
        "eval", help="WER, phoneme error, MOS, speaker similarity, RTF and TTFA, speculation on and off"
    )
    evaluate.add_argument("--text", metavar="FILE", required=True, help="sentences to speak, one a line")
    evaluate.add_argument("--out-dir", metavar="FOLDER", help="keep the audio here")
    evaluate.add_argument("--limit", type=_whole(1, 10**6), metavar="N", help="only the first N lines")
    _common(evaluate)
    _how_fast(evaluate)

    tune = commands.add_parser(
        "tune", help="find the fastest drafter, verifier and gamma for this machine; `say` and `serve` then use it"
    )
    tune.add_argument(
        "--seconds",
        type=_whole(5, 3600),
        default=100,
        metavar="N",
        help="when to stop at the latest, loading included (default 100)",
    )
    outcome = tune.add_mutually_exclusive_group()
    outcome.add_argument("--dry-run", action="store_true", help="measure, but keep what is stored as it is")
    outcome.add_argument("--forget", action="store_true", help="remove what is stored for the voice; measure nothing")
    _common(tune, speculation=False, batches=True)
    _runtime(tune)

    train = commands.add_parser("train", help="train one part from a configuration file")
    train.add_argument("config", metavar="CONFIG", help="a JSON or TOML file")

    _voices(commands)

    _serve(commands.add_parser("serve", help="the voice over HTTP, as OpenAI's API has it (needs the [serve] extra)"))
    for name, what in LATER.items():
        commands.add_parser(name, help=f"{what} (comes with a later version)")
    return parser


def normalise(argv: list[str]) -> list[str]:
    """`--json` takes its file only as `--json=FILE`, so that `say --json TEXT` does not swallow the text."""
    end = argv.index("--") if "--" in argv else len(argv)
    return ["--json=-" if a == "--json" else a for a in argv[:end]] + argv[end:]


def sampling_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling settings that were given, as keyword arguments of `SamplingConfig`."""
    names = ("temperature", "top_k", "top_p", "guidance")
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def beam_options(args: argparse.Namespace) -> dict[str, Any]:
    """The beam search that was asked for, as keyword arguments of `TTS.stream`; nothing where tokens are drawn.

    Raises:
        ConfigError: what does not go with it, or its penalty without it.
    """
    alpha = args.length_penalty
    if args.beam is None:
        if alpha is not None:
            raise ConfigError("--length-penalty goes with --beam")
        return {}
    for names, what in (
        (("drafter", "verifier", "gamma", "num_drafts", "tree"), "drafts"),
        (("temperature", "top_k", "top_p"), "draws"),
    ):
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(args, name) not in (None, "none")]
        if what == "drafts" and args.options:
            given.append("--set")
        if given:
            raise ConfigError(f"a beam search {what} nothing: leave {', '.join(given)} out")
    if args.complete not in ("off", "auto"):
        raise ConfigError("a beam search draws nothing, so nothing can be drawn again: leave --complete off")
    return {"beam": args.beam, **({} if alpha is None else {"length_penalty": alpha})}


def spec_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """The speculation settings that were given, as keyword arguments of `SpecConfig`."""
    names = ("drafter", "verifier", "gamma", "num_drafts", "tree")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return {**given, **({"options": dict(args.options)} if args.options else {})}
