"""History before a table: every row once, on one grid, whatever overlaps or is missing."""

from __future__ import annotations

import io

import numpy as np
import pytest

from forecast.errors import DataError
from forecast.series.data import filled
from forecast.series.history import put_before
from forecast.tables import reading
from forecast.tables.reading import TableOptions


def read(rows, **options):
    text = "unique_id,ds,y\n" + "".join(f"{name},{time},{value}\n" for name, time, value in rows)
    return reading.read(io.BytesIO(text.encode()), TableOptions(**options), frequency="D")


def day(number, month="03"):
    return f"2024-{month}-{number:02d}"


def series(table, name):
    rows = slice(*table.offsets[table.ids.index(name) : table.ids.index(name) + 2])
    return table.times[rows].astype("datetime64[D]").astype(str).tolist(), table.values[rows, 0]


def test_rows_of_the_table_count_and_those_between_are_missing():
    history = read([("a", day(d), d) for d in range(1, 7)] + [("c", day(1), 9), ("b", day(2), 5)])
    table = read([("a", day(5), 50), ("a", day(6), 60), ("b", day(5), 7), ("n", day(1), 1)])
    whole = put_before(table, history)
    assert whole.ids == ("a", "b", "n")
    assert series(whole, "a")[1].tolist() == [1, 2, 3, 4, 50, 60]
    times, values = series(whole, "b")
    assert times == [day(2), day(3), day(4), day(5)]
    np.testing.assert_array_equal(values, [5, np.nan, np.nan, 7])
    assert series(whole, "n")[1].tolist() == [1]
    assert "2 rows are missing between the history and the table." in whole.notices
    assert "1 of 3 series have no rows in the history." in whole.notices
    held = put_before(read([("b", day(5), 7)], fill="hold"), history)
    assert filled(held, carried=True)[0].ravel().tolist() == [5, 5, 5, 7]


def test_history_behind_the_first_new_row_is_left_out():
    table = read([("a", day(3), 3), ("a", day(4), 4)])
    later = read([("a", day(d), 100 + d) for d in (3, 4, 5, 6)])
    assert series(put_before(table, later), "a")[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("z", day(1), 1)], r"none of the 1 series of the table, 'a' first"),
        ([("a", "1990-01-01", 1)], r"ends at 1990-01-01.*12,4\d\d rows before 2024-03-05"),
        ([("a", day(1) + " 12:00", 1)], r"2024-03-01 12:00:00, which is not a whole number of"),
    ],
)
def test_what_does_not_belong_together_is_refused(rows, message):
    with pytest.raises(DataError, match=message):
        put_before(read([("a", day(5), 5)]), read(rows))
