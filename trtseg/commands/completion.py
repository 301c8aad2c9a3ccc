"""`trtseg completion SHELL`: a script that lets a shell complete the command line."""

from __future__ import annotations

import argparse
import importlib

from trtseg import cli
from trtseg.commands.options.extras import EXTRAS

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
put it where the shell looks:
  trtseg completion bash > ~/.local/share/bash-completion/completions/trtseg
  trtseg completion zsh > ~/.trtseg.zsh && echo 'source ~/.trtseg.zsh' >> ~/.zshrc
  trtseg completion fish > ~/.config/fish/completions/trtseg.fish

A command whose packages are not installed is completed without its options."""

_BASH = """\
_trtseg() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands} --help --version"
  else
    case "${{COMP_WORDS[1]}} $before" in
{choices}
      *)
        case "${{COMP_WORDS[1]}} $word" in
{options}
        esac ;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _trtseg trtseg"""
_ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments on `parser`."""
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the script to stdout."""
    actions = {name: _actions(module) for name, (module, _) in cli.COMMANDS.items()}
    if args.shell == "fish":
        print(_fish(actions))
    else:
        print((f"{_ZSH}\n" if args.shell == "zsh" else "") + _bash(actions))
    return 0


def _actions(module_name: str) -> list[argparse.Action]:
    """The arguments that a command declares; none where it cannot be imported here."""
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        return []
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser._actions  # argparse has no public way to ask


def _bash(actions: dict[str, list[argparse.Action]]) -> str:
    choices, options = [], []
    for command, declared in actions.items():
        flags = " ".join(flag for action in declared for flag in action.option_strings)
        options.append(f'          "{command} -"*) words="{flags}" ;;')
        for action in declared:
            if not action.choices:
                continue
            words = " ".join(map(str, action.choices))
            # an argument without a flag directly follows its command
            patterns = " | ".join(
                f'"{command} {flag}"' for flag in action.option_strings or [command]
            )
            choices.append(f'      {patterns}) words="{words}" ;;')
    return _BASH.format(
        commands=" ".join(actions), choices="\n".join(choices), options="\n".join(options)
    )


def _fish(actions: dict[str, list[argparse.Action]]) -> str:
    lines = []
    for command, declared in actions.items():
        summary = _quoted(cli.COMMANDS[command][1])
        lines.append(f"complete -c trtseg -n __fish_use_subcommand -fa {command} -d {summary}")
        for action in declared:
            line = f"complete -c trtseg -n '__fish_seen_subcommand_from {command}'"
            for flag in action.option_strings:
                line += f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}"
            if action.choices:
                words = _quoted(" ".join(map(str, action.choices)))
                line += f" -xa {words}" if action.option_strings else f" -fa {words}"
            elif not action.option_strings:
                continue
            elif action.nargs != 0:
                line += " -r"
            if action.help:
                line += f" -d {_quoted(action.help.partition(' (default')[0])}"
            lines.append(line)
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
