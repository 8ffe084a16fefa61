"""The options of `completion`; imports nothing heavy, so that `--help` is quick.

Knows nothing of shells: `commands/shell_completion.py` writes the scripts.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.cli.options.plan import Add

SHELLS = ("bash", "zsh", "fish")
WORDS = ("models", "kept", "packs", "plans")  # what scripts ask for


class _Shells(tuple[str, ...]):
    """What may be asked for, of which messages and scripts list the shells only."""

    def __contains__(self, word: object) -> bool:
        return word in (*iter(self), *WORDS)


def add_completion(commands: Any, add: Add) -> None:
    """Put `completion` on the command line; `add` is as for `add_plan_commands`."""
    about = "print the script by which a shell completes this command"
    parser = add(commands, "completion", about, _EXAMPLES)
    parser.set_defaults(module="shell_completion")
    parser.add_argument(
        "what",
        choices=_Shells(SHELLS),
        metavar="SHELL",
        help="bash, zsh or fish",
    )


_EXAMPLES = """Put the script where the shell looks for it, then start a new shell:
  bash  mkdir -p ~/.local/share/bash-completion/completions
        sparity-edge completion bash > ~/.local/share/bash-completion/completions/sparity-edge
  zsh   mkdir -p ~/.zfunc && sparity-edge completion zsh > ~/.zfunc/_sparity-edge
        and in ~/.zshrc, in front of compinit: fpath=(~/.zfunc $fpath)
  fish  sparity-edge completion fish > ~/.config/fish/completions/sparity-edge.fish
For this shell only: eval "$(sparity-edge completion bash)"
"""
