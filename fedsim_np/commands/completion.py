"""``fedsim-np completion``: what a shell needs to complete commands, flags and names.

The script that is printed has all words in it, and asks nobody: it is to be made again with a new version.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from fedsim_np.algorithms import ALGORITHMS
from fedsim_np.commands.arguments import add_examples
from fedsim_np.datasets.named import NAMED_DATA
from fedsim_np.learning.engines import ENGINES
from fedsim_np.runs.config import MODELS, OPTIMIZERS, RunConfig
from fedsim_np.runs.updates import (
    AGGREGATORS,
    ATTACKS,
    CLIPS,
    COMPRESSORS,
    DATA_ATTACKS,
    NETWORKS,
    SAMPLINGS,
)

_VALUES: dict[str, Iterable[str]] = {
    "--algorithm": ALGORITHMS,
    "--aggregator": AGGREGATORS,
    "--attack": [*ATTACKS, *DATA_ATTACKS],
    "--clip": CLIPS,
    "--compress": COMPRESSORS,
    "--data": NAMED_DATA,
    "--client-optimizer": OPTIMIZERS,
    "--server-optimizer": OPTIMIZERS,
    "--engine": ENGINES,
    "--model": MODELS,
    "--network": NETWORKS,
    "--sampling": SAMPLINGS,
    "--set": [f"{field.name}=" for field in dataclasses.fields(RunConfig)],
}
_HELP = " help"
_BASH = """# Completion of fedsim-np, for bash. To use it: source <(fedsim-np completion bash)
_fedsim_np() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= files=yes i words
    case $before in
%(values)s    esac
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
        [ "$before" = --data ] && COMPREPLY+=($(compgen -f -- "$word"))
        [ "$before" = --set ] && compopt -o nospace 2>/dev/null
        return
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -*) ;;
            *) case "$command ${COMP_WORDS[i]}" in
%(paths)s               esac ;;
        esac
    done
    case $command in
%(flags)s    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ $word != -* && -n $command && -n $files ]] && COMPREPLY+=($(compgen -f -- "$word"))
}
complete -o filenames -F _fedsim_np fedsim-np
"""
_ZSH = """# Completion of fedsim-np, for zsh. To use it: source <(fedsim-np completion zsh)
autoload -U +X compinit && compinit
autoload -U +X bashcompinit && bashcompinit
"""

_EXAMPLES = """\
  echo 'source <(fedsim-np completion bash)' >> ~/.bashrc
      in every bash from now on
  echo 'source <(fedsim-np completion zsh)' >> ~/.zshrc
      in every zsh from now on"""


def add_parser(commands: Any, parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Add the command to a parser's subcommands; `parser` makes the whole parser."""
    completion = commands.add_parser(
        "completion",
        help="what bash or zsh needs to complete this command",
        description="Print a script that has a shell complete commands, flags and names. It knows this version's: it "
        "is made anew where a shell starts.",
    )
    completion.add_argument("shell", choices=("bash", "zsh"), help="Which shell.")
    add_examples(completion, _EXAMPLES)
    completion.set_defaults(run=lambda arguments: _run(arguments, parser()))


def _run(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    print((_ZSH if arguments.shell == "zsh" else "") + script(parser), end="")
    return 0


def script(parser: argparse.ArgumentParser) -> str:
    """Return the function that completes, for bash; zsh takes it too."""
    found = {of.path: of for of in _parsers(parser, "")}
    named = {**_VALUES, **{flag: choices for of in found.values() for flag, choices in of.values.items()}}
    # What follows "help" are commands, and never files.
    for path, of in [*found.items()]:
        if path != _HELP:
            found[_HELP + path] = _Command(_HELP + path, of.below, [], [], {}, files=False)
    values = "".join(f"        {flag}) words='{' '.join(of)}' ;;\n" for flag, of in named.items())
    paths = "".join(f"                '{path}') command='{path}' ;;\n" for path in found if path)
    flags = "".join(
        f"        '{path}') words='{' '.join([*of.words, *of.flags])}'{' files=' * (not of.files)} ;;\n"
        for path, of in found.items()
    )
    return _BASH % {"values": values, "paths": paths, "flags": flags}


class _Command(NamedTuple):
    """The words of a command, what may follow them, which of those are commands, flags; and whether files may, too."""

    path: str
    words: list[str]
    flags: list[str]
    below: list[str]
    values: dict[str, list[str]]
    files: bool


def _parsers(parser: argparse.ArgumentParser, path: str) -> Iterator[_Command]:
    """Yield all commands."""
    words: list[str] = []
    flags: list[str] = []
    values: dict[str, list[str]] = {}
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        long = [flag for flag in action.option_strings if flag.startswith("--")]
        choices = [*map(str, action.choices or ())]
        flags += long
        if isinstance(action, argparse._SubParsersAction):
            below = action.choices
        if not action.option_strings:
            words += choices
        elif choices:
            values.update(dict.fromkeys(long, choices))
    yield _Command(path, words, flags, [*below], values, files=not words)
    for name, of in below.items():
        yield from _parsers(of, f"{path} {name}")
