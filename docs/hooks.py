"""Hooks of the documentation site: the page of all commands, from their own help, and pages of results."""

from pathlib import Path

from mkdocs.structure.files import File

HEAD = """# Commands

Each step of the workflow is a command of its own; `measure` and its neighbours serve networks that the
workflow does not know. This page is made from the commands' help.
"""


def commands() -> str:
    """Markdown of all commands and options."""
    import typer.main
    from typer.core import TyperGroup

    from robust_flatness.cli import app

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    lines = [HEAD]
    for name, command in sorted(group.commands.items()):
        lines += [f"## {name}", "", (command.help or "").strip(), ""]
        rows = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            argument = parameter.param_type_name == "argument"
            shown = parameter.name.upper() if argument else parameter.opts[0]
            default = parameter.default
            given = "" if callable(default) or default in (None, "", ...) else f"`{default}`"
            needed = "needed" if parameter.required else given
            rows.append(f"| `{shown}` | {(getattr(parameter, 'help', '') or '').strip()} | {needed} |")
        if rows:
            lines += ["| option | what it is | default |", "| --- | --- | --- |", *rows, ""]
    return "\n".join(lines)


def on_files(files, config):
    """Add the page of commands."""
    files.append(File.generated(config, "commands.md", content=commands()))
    return files


def on_nav(nav, config, files):
    """Name the experiments whose results are kept here, in the log of the build."""
    kept = sorted(path.name for path in Path(config["docs_dir"], "results").glob("*") if path.is_dir())
    print(f"results in the site: {', '.join(kept)}")
    return nav
