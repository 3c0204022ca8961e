"""The methods' own options as fields of the form, one group a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ramole_core import Ramole, RamoleError

from ..parts.fields import whole

ADVANCED = "Advanced: the method's own numbers"


@dataclass(frozen=True)
class OptionField:
    """One option of one method."""

    method: str
    name: str
    default: bool | int | float
    component: gr.Checkbox | gr.Number

    def read(self, value: object) -> bool | int | float:
        """The component's value as the option's own kind; its default where it was emptied.

        Raises RamoleError for a number with a fraction where a whole one belongs.
        """
        if value is None:
            return self.default
        if not isinstance(value, int | float):
            raise RamoleError(f"{self.name} is {value!r}; give a number.")
        number = whole(value, self.name) if isinstance(self.default, int) else value
        return type(self.default)(number)


class Options:
    """All methods' options; those of the chosen method are visible."""

    def __init__(self, ramole: Ramole, *, method: str) -> None:
        self.fields: list[OptionField] = []
        # By method, of the methods that have options.
        self.groups: dict[str, gr.Row] = {}
        there = any(row.name == method and row.options for row in ramole.methods())
        # Holds them all; in sight where the method has some.
        with gr.Accordion(ADVANCED, open=False, visible=there, elem_id="advanced") as self.fold:
            for row in ramole.methods():
                if not row.options:
                    continue
                shown = row.name == method
                with gr.Row(visible=shown, elem_id=f"options-{row.name}") as self.groups[row.name]:
                    self.fields += [
                        OptionField(row.name, one.name, one.default, _component(row.name, one))
                        for one in row.options
                    ]

    @property
    def components(self) -> list[gr.Checkbox | gr.Number]:
        """In the order of `fields`."""
        return [one.component for one in self.fields]

    def shown(self, method: str) -> dict[Any, Any]:
        """The groups, with this method's visible, and their fold."""
        rows = {group: gr.Row(visible=name == method) for name, group in self.groups.items()}
        return {**rows, self.fold: gr.Accordion(visible=method in self.groups)}

    def chosen(self, method: str, values: Sequence[object]) -> dict[str, bool | int | float]:
        """This method's options by name, where they differ from their defaults."""
        mine = [
            (one, one.read(value))
            for one, value in zip(self.fields, values, strict=True)
            if one.method == method
        ]
        return {one.name: value for one, value in mine if value != one.default}

    def filled(self, method: str, options: dict[str, Any]) -> dict[Any, Any]:
        """Return the components with these options; other methods' have their defaults."""
        return {
            one.component: options.get(one.name, one.default)
            if one.method == method
            else one.default
            for one in self.fields
        }


def _component(method: str, option: Any) -> gr.Checkbox | gr.Number:
    name, label = f"option-{method}-{option.name}", f"{option.name}: {option.help}"
    if isinstance(option.default, bool):
        return gr.Checkbox(option.default, label=label, elem_id=name)
    return gr.Number(
        option.default,
        label=label,
        minimum=option.low,
        maximum=option.high,
        precision=0 if isinstance(option.default, int) else None,
        min_width=150,
        elem_id=name,
    )
