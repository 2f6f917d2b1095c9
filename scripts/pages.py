"""Makes the man page and the completions for bash, zsh and fish from what the program says of itself with --help all,
which comes from its tables of options.

usage: pages.py PROGRAM FOLDER      writes mlxbench.1, mlxbench.bash, _mlxbench and mlxbench.fish
"""

import pathlib
import re
import subprocess
import sys
from dataclasses import dataclass, field


@dataclass
class Option:
    names: list  # ["-np", "--n-prompt"]; empty for words that belong to no option
    metavar: str
    help: str


@dataclass
class Command:
    name: str
    summary: str
    usage: str = ""
    about: str = ""
    options: list = field(default_factory=list)
    example: str = ""


def said(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout


def read_options(lines):
    """"  -t, --threads N,...     CPU threads" and the lines that go on with the help, which begin further right."""
    options = []
    for line in lines:
        match = re.match(r"  (\S.*?)(?:  +(.*))?$", line)
        if match and not line.startswith("   "):
            names = re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", match[1])
            metavar = re.sub(r"(?<!\S)--?[a-z][a-z0-9-]*,?", "", match[1]).strip()
            options.append(Option(names, metavar, match[2] or ""))
        elif line.strip() and options:
            options[-1].help = f"{options[-1].help} {line.strip()}".strip()
    return options


def read_command(program, name, summary):
    before, _, rest = said(program, name, "--help", "all").partition("\noptions:\n")
    options, _, example = rest.partition("\nexample:\n")
    usage, _, about = before.partition("\n\n")
    return Command(name, summary, " ".join(usage.removeprefix("usage: ").split()), " ".join(about.split()),
                   read_options(options.splitlines()), example.strip("\n"))


def read_program(program):
    page = said(program, "--help")
    listed = re.search(r"\ncommands:\n(.*?)\n\n", page, re.S)[1]
    return [read_command(program, *re.match(r"  (\S+)\s+(.*)", line).groups()) for line in listed.splitlines()]


# ---- man ----

def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def man_page(commands, version):
    lines = [f'.TH MLXBENCH 1 "" "mlxbench {version}" "User Commands"', ".SH NAME",
             "mlxbench \\- benchmark of language models on this machine", ".SH SYNOPSIS"]
    for command in commands:
        lines += [".PP", roff(command.usage)]
    lines += [".SH DESCRIPTION", "mlxbench measures how fast language models run on this machine. Its commands:"]
    for command in commands:
        lines += [".TP", f".B {roff(command.name)}", roff(command.summary)]
    for command in commands:
        lines += [f".SH {roff(command.name.upper())}", roff(command.about)]
        for option in command.options:
            names = ", ".join(f"\\fB{roff(name)}\\fR" for name in option.names)
            lines += [".TP", f"{names} \\fI{roff(option.metavar)}\\fR".strip(), roff(option.help)]
        lines += [".PP", "Example:", ".PP", ".nf", ".RS", roff(command.example), ".RE", ".fi"]
    lines += [".SH EXIT STATUS", "0, or 2 for wrong usage, 3 when a check that was asked for fails, 130 after an interrupt, 1 otherwise."]
    return "\n".join(lines) + "\n"


# ---- completions: commands and options; values are completed as files ----

def words(command):
    return [name for option in command.options for name in option.names]


def bash(commands):
    cases = "\n".join(f"    {c.name}) words='{' '.join(words(c))}' ;;" for c in commands)
    names = " ".join(c.name for c in commands)
    return f"""# Completion of mlxbench for bash, made by scripts/pages.py.
_mlxbench() {{
    local command=bench words current=${{COMP_WORDS[COMP_CWORD]}} word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in {"|".join(c.name for c in commands)}) command=$word; break ;; esac
    done
    case $command in
{cases}
    esac
    COMPREPLY=()
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$words --version" -- "$current"))
    elif ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "{names}" -- "$current"))
    fi
}}
complete -o default -F _mlxbench mlxbench
"""


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def zsh(commands):
    listed = "\n".join(f"    {quoted(f'{c.name}:{c.summary}')}" for c in commands)

    def specs(command):
        for option in command.options:
            text = re.sub(r"([\[\]:\\])", r"\\\1", option.help)
            value = ":" + re.sub(r"([\[\]:\\])", r"\\\1", option.metavar) + ":_files" if option.metavar else ""
            for name in option.names:
                yield f"      {quoted(f'*{name}[{text}]{value}')}"

    cases = "\n".join(f"    {c.name}) _arguments \\\n" + " \\\n".join(specs(c)) + " ;;" for c in commands)
    return f"""#compdef mlxbench
# Completion of mlxbench for zsh, made by scripts/pages.py.
_mlxbench() {{
  local command=bench
  local -a commands=(
{listed}
  )
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _describe command commands
    return
  fi
  if [[ $words[2] != -* ]]; then
    command=$words[2]
    shift words
    (( CURRENT-- ))
  fi
  case $command in
{cases}
  esac
}}
_mlxbench "$@"
"""


def fish(commands):
    names = " ".join(c.name for c in commands)
    lines = ["# Completion of mlxbench for fish, made by scripts/pages.py."]
    for command in commands:
        lines.append(f"complete -c mlxbench -n __fish_use_subcommand -a {command.name} -d {quoted(command.summary)}")
        when = f"__fish_seen_subcommand_from {command.name}"
        if command.name == "bench":  # the default command
            when += f"; or not __fish_seen_subcommand_from {names}"
        for option in command.options:
            switches = []
            for name in option.names:
                plain = name.lstrip("-")
                switches.append(f"-l {plain}" if name.startswith("--") else f"-s {plain}" if len(plain) == 1 else f"-o {plain}")
            needs = " -r" if option.metavar else ""
            if switches:
                lines.append(f"complete -c mlxbench -n {quoted(when)} {' '.join(switches)}{needs} -d {quoted(option.help)}")
    return "\n".join(lines) + "\n"


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    commands = read_program(program)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlxbench.1").write_text(man_page(commands, said(program, "--version").split()[1]))
    (folder / "mlxbench.bash").write_text(bash(commands))
    (folder / "_mlxbench").write_text(zsh(commands))
    (folder / "mlxbench.fish").write_text(fish(commands))


if __name__ == "__main__":
    main()
