"""The command `sparity-edge`: options, exit codes, and one sentence for every mistake.

Exit codes: 0; 1 something cannot be done; 2 the command line makes no sense; 130 Ctrl-C; 141 the
reader of stdout has gone; 143 SIGTERM. What the commands do is in `cli/commands/`, imported once
the command line is understood: `--help` needs neither NumPy nor Numba.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from sparity_edge.choices import DEFAULT_MODEL, DTYPES, KV_DTYPES
from sparity_edge.cli.options.bench import BENCH_EXAMPLES, add_bench_options
from sparity_edge.cli.options.doctor import add_doctor
from sparity_edge.cli.options.evaluation import (
    KL_EXAMPLES,
    PERPLEXITY_EXAMPLES,
    add_evaluation_options,
)
from sparity_edge.cli.options.lora import add_lora_option
from sparity_edge.cli.options.models import add_model_commands
from sparity_edge.cli.options.packing import SOURCE_HELP, add_cache, add_convert, add_verify
from sparity_edge.cli.options.plan import add_plan_commands
from sparity_edge.cli.options.prefixes import add_prefix_options
from sparity_edge.cli.options.sampling import add_sampling_options
from sparity_edge.cli.options.serve import add_serve
from sparity_edge.cli.options.shell_completion import add_completion
from sparity_edge.cli.options.speculation import add_speculation_options
from sparity_edge.cli.options.template import add_template_option
from sparity_edge.cli.parser import Parser
from sparity_edge.errors import SparityError, TooLossyError
from sparity_edge.system.interrupts import interrupts
from sparity_edge.terminal.json_output import add_json_option
from sparity_edge.terminal.screen import one_line, prepare_streams, silence_stdout

MODEL_HELP = f"{SOURCE_HELP} (default: {DEFAULT_MODEL})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after the command's name; None: those of this process.
    """
    prepare_streams()
    arguments = argparse.Namespace(verbose=0)
    with interrupts() as heard:
        try:
            build_parser().parse_args(argv, arguments)
            _name_adapters(arguments)
            commands = importlib.import_module(f"sparity_edge.cli.commands.{arguments.module}")
            getattr(commands, arguments.run)(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            silence_stdout()
            return 141
        except Exception as error:
            if heard and isinstance(error, ImportError):
                return 128 + heard[-1]  # NumPy's import calls a Ctrl-C so
            if arguments.verbose > 1:
                traceback.print_exc()
            print(f"sparity-edge: {one_line(_sentence(error))}", file=sys.stderr)
            return 1
    return 0


def _name_adapters(arguments: argparse.Namespace) -> None:
    """Have LoRA adapters be part of the model's name from here on."""
    if getattr(arguments, "lora", None):
        from converters.adapters.names import with_adapters

        named = "source" if hasattr(arguments, "source") else "model"
        setattr(arguments, named, with_adapters(getattr(arguments, named), arguments.lora))


def _sentence(error: Exception) -> str:
    if isinstance(error, TooLossyError):
        return f"{error.finding}; --force follows it all the same."
    if isinstance(error, SparityError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory; use a smaller model, a smaller --dtype or context."
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "")
        return f"{what}{error.strerror or error}{remedy}."
    return f"Internal error ({type(error).__name__}: {error}); -vv shows where, please report it."


_REMEDIES = {
    errno.ENOENT: "; check the spelling",
    errno.EISDIR: "; name a file",
    errno.EACCES: "; check its permissions",
    errno.ENOSPC: "; free some space",
}


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from sparity_edge import __version__

        print(f"sparity-edge {__version__}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `arguments.run` names a function in `arguments.module`."""
    parser = Parser(
        prog="sparity-edge",
        description="Llama, Mistral, Qwen, OLMo, Granite and Phi-3 models on the CPU.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=Parser
    )
    _add_chat(commands)
    _add_generate(commands)
    add_serve(commands, _add, _add_model, _add_loading)
    _add_info(commands)
    _add_perplexity(commands)
    _add_kl(commands)
    _add_bench(commands)
    add_model_commands(commands, _add)
    add_convert(commands, _add)
    add_plan_commands(commands, _add)
    add_verify(commands, _add)
    add_cache(commands, _add)
    add_doctor(commands, _add)
    add_completion(commands, _add)
    return parser


def _add(commands: Any, name: str, about: str, epilog: str = "") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=epilog
    )
    parser.set_defaults(run=name, module="answering")
    parser.add_argument(
        "-v",
        dest="verbose",
        action="count",
        default=0,
        help="tell more on stderr; -vv shows where an error comes from",
    )
    return parser


def _add_chat(commands: Any) -> None:
    parser = _add(commands, "chat", "talk to a model", _CHAT_EXAMPLES)
    _add_model(parser)
    parser.add_argument("--prompt", "-p", metavar="TEXT", help="reply to this one message and exit")
    parser.add_argument(
        "--system", metavar="TEXT", help="system prompt (default: that of the model's template)"
    )
    add_template_option(parser)
    add_sampling_options(parser)
    add_prefix_options(parser)
    _add_loading(parser)


def _add_generate(commands: Any) -> None:
    parser = _add(commands, "generate", "continue a text, without a chat template", _GEN_EXAMPLES)
    _add_model(parser)
    parser.add_argument(
        "--prompt", "-p", metavar="TEXT", help="the text to continue (default: standard input)"
    )
    add_sampling_options(parser)
    add_prefix_options(parser)
    _add_loading(parser)


def _add_info(commands: Any) -> None:
    parser = _add(commands, "info", "show what there is to know about a model")
    _add_model(parser)
    add_json_option(parser)
    parser.add_argument(
        "--cpu", action="store_true", help="show what kernels are compiled to here, and no model"
    )
    _add_loading(parser)


def _add_perplexity(commands: Any) -> None:
    about = "measure how well a model predicts a text"
    parser = _add(commands, "perplexity", about, PERPLEXITY_EXAMPLES)
    parser.set_defaults(module="evaluation")
    _add_model(parser)
    add_evaluation_options(parser)
    _add_loading(parser)


def _add_kl(commands: Any) -> None:
    about = "measure what a sparsity plan changes in a model's predictions"
    parser = _add(commands, "kl", about, KL_EXAMPLES)
    parser.set_defaults(module="evaluation")
    _add_model(parser)
    add_evaluation_options(parser)
    _add_loading(parser)


def _add_bench(commands: Any) -> None:
    about = "measure how fast prefill and decoding of a model are here"
    parser = _add(commands, "bench", about, BENCH_EXAMPLES)
    parser.set_defaults(module="bench")
    _add_model(parser)
    add_bench_options(parser)
    add_lora_option(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help=MODEL_HELP)


def _add_loading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("loading")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="number format (default: integers stay as they are, all else becomes int8)",
    )
    group.add_argument(
        "--threads", type=int, metavar="N", help="threads (default: all physical cores)"
    )
    group.add_argument(
        "--max-context",
        type=int,
        metavar="N",
        help="positions of the KV cache: tokens of prompts and replies",
    )
    group.add_argument(
        "--cache-dtype",
        choices=KV_DTYPES,
        help="number format of the KV cache (default: bf16, or f32 where all weights are)",
    )
    group.add_argument(
        "--sparsity",
        type=float,
        metavar="S",
        help="share of weight bytes to skip, where that is faster here (default: 0)",
    )
    group.add_argument(
        "--plan", metavar="PLAN", help="the sparsity plan to follow (default: the fastest one)"
    )
    group.add_argument(
        "--level",
        type=float,
        metavar="L",
        help="the plan's own level, in place of --sparsity; followed at any speed",
    )
    group.add_argument(
        "--force", action="store_true", help="follow a plan even if it gains nothing or loses much"
    )
    group.add_argument(
        "--sparse-prefill", action="store_true", help="sparsify prefill too, all but four tokens"
    )
    group.add_argument(
        "--full-head",
        action="store_true",
        help="compute all logits, also where few of them can matter",
    )
    add_lora_option(group)
    add_speculation_options(group)
    group.add_argument("--offline", action="store_true", help="use only what is on this machine")


_EXAMPLES = """examples:
  sparity-edge chat
  sparity-edge chat ./my-model --system "Answer in one sentence."
  sparity-edge chat --prompt "What is the capital of France?" --temperature 0
  echo "Once upon a time" | sparity-edge generate --max-tokens 100
  sparity-edge pull org/name:Q4_K_M
  sparity-edge convert org/name ./my-model --dtype int4
`sparity-edge COMMAND --help` tells more.
"""
_CHAT_EXAMPLES = """In a chat /help lists the commands. Without a terminal the message is read from
standard input, and only the reply is written to standard output.

examples:
  sparity-edge chat
  sparity-edge chat model.gguf --max-context 4096 --temperature 0.2
  sparity-edge chat --prompt "Name three rivers." --seed 1 --max-tokens 60
  git diff | sparity-edge chat --system "Write a commit message for this change."
"""
_GEN_EXAMPLES = """examples:
  sparity-edge generate --prompt "Once upon a time" --max-tokens 100
  sparity-edge generate org/base-model -p "def fibonacci(n):" --temperature 0 --stop "\\ndef"
  sparity-edge generate --prompt "1, 2, 3" --logit-bias 42=-inf --ignore-eos --max-tokens 20
  sparity-edge generate < beginning.txt
"""
