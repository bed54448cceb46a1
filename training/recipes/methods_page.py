"""deploy/METHODS.md: every method, option and preset, written from the dataclasses.

python -m training.recipes.methods_page > deploy/METHODS.md
"""

from typing import Any

from training.recipes.options import METHODS, describe_options
from training.recipes.presets import PRESETS

HEAD = """# Methods and their options

Written by `python -m training.recipes.methods_page > deploy/METHODS.md` from the recipes' own dataclasses, as the form
and the API (`GET /api/v1/methods`) are; a test holds it to them. A method's recipe is `training/recipes/<method>.py`.
"""
PRESETS_HEAD = """
# Presets

A preset sets some options and leaves the others at their defaults. deploy/MEMORY.md goes through the sums.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, method in METHODS.items():
        parts.append(
            f"\n## {method.title} (`{name}`)\n\n{method.line} It reads {method.reads} and makes a {method.makes}.\n"
        )
        parts.append(
            "\n| option | default | range | what it does | where the default is from |\n|---|---|---|---|---|\n"
        )
        parts += [_row(option) for option in describe_options(name)]
    parts.append(PRESETS_HEAD)
    for name, preset in PRESETS.items():
        parts.append(f"\n## {name}\n\n{preset.line} For models of {preset.for_models}.\n\n")
        parts += [
            f"- {method.title}: {', '.join(f'{k} {v:g}' for k, v in preset.options(key).items())}\n"
            for key, method in METHODS.items()
        ]
    return "".join(parts)


def _row(option: dict[str, Any]) -> str:
    default = f"{option['default']:g}" if isinstance(option["default"], float) else str(option["default"])
    cells = [f"`{option['name']}`", default or "empty", _range(option), option["help"], option["source"]]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _range(option: dict[str, Any]) -> str:
    if option["choices"]:
        return ", ".join(option["choices"])
    if option["type"] == "str":
        return f"at most {option['high']:,} characters"
    return f"{option['low']:g} to {option['high']:g}"


if __name__ == "__main__":
    print(page(), end="")
