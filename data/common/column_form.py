"""The form of a column - pixels or fractions, corners or a size, HH:MM or MM:HH - judged from all of its values.

One value often fits several forms: [10, 20, 30, 40] is a box by its corners and by its size. So a row is refused where
it can't be of the declared form, and the column where its rows together show another form: then those that happen to
fit the declared one would be taught wrongly, and leaving out the others with `on_error=skip` would not help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from data.common.errors import InvalidData, RowErrors

Rows = TypeVar("Rows")
# A column is refused where at least this many values, and this share of them, can't be of the declared form while
# nearly all are of another one. Fewer are broken rows.
LEAST_MISFITS = 2
MISFIT_SHARE = 0.05
LAX_MISFIT_SHARE = 0.2
OUTLIERS = 0.01


class Misfit(InvalidData):
    """A value that can't be of its column's declared form."""


class ContradictedColumn(InvalidData):
    """A column whose values together show another form than the declared one; raised with `on_error=skip` too."""


class ColumnForm:
    """Counts of the values of one column that fit each form.

    Args:
        declared: name of the form that the values are read in.
        forms: name -> what says whether a value fits, `declared` among them.
        lax: forms that a column of the declared one fits too, apart from broken rows (0 to 1000 in pixels of a smaller
            picture): it takes more misfits to believe in them.
    """

    def __init__(self, declared: str, forms: Mapping[str, Callable[..., bool]], lax: frozenset[str] = frozenset()):
        self.declared, self.forms, self.lax = declared, forms, lax
        self.values = 0
        self.fitting = dict.fromkeys(forms, 0)
        self._first_misfit = ""

    def add(self, where: str, *value: object) -> None:
        """Count a value; `value` is what the forms' functions take."""
        self.values += 1
        for name, fits in self.forms.items():
            if fits(*value):
                self.fitting[name] += 1
            elif name == self.declared and not self._first_misfit:
                self._first_misfit = where

    def other_form(self) -> str | None:
        """The form that the values show instead of the declared one; None where they don't contradict it."""
        misfits = self.values - self.fitting[self.declared]
        candidates = [
            name
            for name, fitting in self.fitting.items()
            if name != self.declared
            and self.values - fitting <= OUTLIERS * self.values
            and misfits >= max(LEAST_MISFITS, (LAX_MISFIT_SHARE if name in self.lax else MISFIT_SHARE) * self.values)
        ]
        return max(candidates, key=lambda name: (name not in self.lax, self.fitting[name]), default=None)

    def check(self, where: str, field: str, remedy: str) -> None:
        """Check, when all rows are read, that the column is of its declared form.

        Raises:
            ContradictedColumn: it isn't; the message counts both and ends with `remedy`, which may hold {form}.
        """
        other = self.other_form()
        if other is None:
            return
        misfits = self.values - self.fitting[self.declared]
        problem = (
            f"read as {self.declared}, but {misfits} of its {self.values} values can't be (the first in "
            f"{self._first_misfit}), and {self.fitting[other]} of {self.values} can be {other}"
        )
        raise ContradictedColumn(where, field, problem, remedy.format(form=other))


def read_with_evidence(read: Callable[[RowErrors], Rows], row_errors: RowErrors) -> Rows:
    """`read(row_errors)`; where one row's misfit ends it, the rest is read too, to tell a broken row from the column.

    Raises:
        ContradictedColumn: the column is of another form.
        InvalidData: as `read`.
    """
    try:
        return read(row_errors)
    except Misfit:
        if row_errors.on_error == "raise":
            try:
                read(RowErrors("skip"))
            except ContradictedColumn:
                raise
            except InvalidData:
                pass  # what is wrong first is what to tell
        raise
