"""Tables as people have them: quarters, German numbers, workbooks, JSON, ids under any name."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import numpy as np
import pytest

from forecast import recipe
from forecast.errors import DataError, MissingExtraError, UsageError
from forecast.models import MODELS
from forecast.runs.recipe_template import write_recipe
from forecast.tables.reading import TableOptions, forecast_frame, future_times, read
from forecast.tables.suggest import suggest


def table(content, **options):
    data = content.encode() if isinstance(content, str) else content
    return read(io.BytesIO(data), TableOptions(**options), name="sales.csv")


def written_ahead(found, rows=2):
    later = future_times(found.times[-1], found.frequency, rows, found.layout.timezone)
    frame = forecast_frame(found.layout, found.ids, later[None], np.zeros((1, rows, 1)))
    return frame[found.layout.time].to_list()


def workbook(rows):
    """Write the least that is a workbook: one sheet of text and numbers."""

    def cell(value):
        if isinstance(value, str):
            return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
        return f"<c><v>{value}</v></c>"

    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    lines = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/s.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="r" Type="{office}/officeDocument" Target="xl/workbook.xml"/>'
        "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="s" sheetId="1" r:id="w"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships">'
        f'<Relationship Id="w" Type="{office}/worksheet" Target="worksheets/s.xml"/>'
        "</Relationships>",
        "xl/worksheets/s.xml": f'<worksheet xmlns="{main}"><sheetData>{lines}</sheetData>'
        "</worksheet>",
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, '<?xml version="1.0" encoding="UTF-8"?>' + text)
    return stream.getvalue()


@pytest.mark.parametrize(("form", "after"), [("{}Q{}", "2021Q1"), ("{}-q{}", "2021-q1")])
def test_quarters_are_read_and_written_as_they_stand(form, after):
    cells = [form.format(2019 + k // 4, k % 4 + 1) for k in range(8)]
    found = table("quarter,y\n" + "".join(f"{cell},{k}\n" for k, cell in enumerate(cells)))
    assert found.frequency.startswith("QS")
    assert str(found.times[1])[:10] == "2019-04-01"
    assert written_ahead(found)[0] == after


def test_counted_rows_are_times_when_it_is_said():
    text = "t,y\n" + "".join(f"{k},{k}\n" for k in range(5))
    with pytest.raises(DataError) as caught:
        table(text, time="t")
    assert "--date-format steps" in caught.value.hint
    assert written_ahead(table(text, time="t", date_format="steps")) == [5, 6]


def test_a_later_row_proves_the_order_of_day_and_month_for_all_and_for_later_files():
    first = "date,y\n" + "".join(f"{day:02}.01.2024,1\n" for day in range(1, 15))
    found = table(first)
    assert str(found.times[1])[:10] == "2024-01-02"
    assert "The dates are read as %d.%m.%Y: '13.01.2024' on row 14 can be no other." in (
        found.notices
    )
    later = table("date,y\n01.02.2024,1\n02.02.2024,1\n", date_format=found.layout.date_format)
    assert str(later.times[0])[:10] == "2024-02-01"
    for both in ("13.01.2024", "01.13.2024"), ("01.02.2024", "02.02.2024"):
        with pytest.raises(DataError, match="could be swapped"):
            table("date,y\n" + "".join(f"{cell},1\n" for cell in both))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.226,32", "1.500", "12,5"], [1226.32, 1500, 12.5]),
        (["1,226.32", "1,500", "12.5"], [1226.32, 1500, 12.5]),
        (["-1.226.000,5", "1,0", ""], [-1226000.5, 1, np.nan]),
    ],
)
def test_a_number_with_both_marks_says_which_is_which(cells, expected):
    rows = "".join(f'2024-01-{day:02};"{cell}"\n' for day, cell in enumerate(cells, 1))
    np.testing.assert_array_equal(table("date;y\n" + rows).values[:, 0], expected)


@pytest.mark.parametrize("cells", [["1.226,32", "1,226.32"], ["1,500", "2,500"]])
def test_marks_that_contradict_each_other_or_prove_nothing_are_refused(cells):
    rows = "".join(f'2024-01-{day:02};"{cell}"\n' for day, cell in enumerate(cells, 1))
    with pytest.raises(DataError):
        table("date;y\n" + rows)


SHOPS = "".join(
    f"2024-01-{day:02},{shop},{region},{day + place}{'.5' * (day % 2)},{day % 3}\n"
    for day in range(1, 21)
    for place, (shop, region) in enumerate([("a", "n"), ("b", "s"), ("c", "n")])
)


def test_an_id_of_any_name_is_found_and_named():
    text = "date,shop,region,sales,promo\n" + SHOPS
    with pytest.raises(DataError, match="'shop' tells them apart") as caught:
        table(text)
    assert caught.value.hint == "Name the column of ids: --id shop"
    named = table(text, id="shop", target=("sales",))
    assert named.ids == ("a", "b", "c")
    # rows that are there twice are still rows that are there twice
    with pytest.raises(DataError, match="is there again"):
        table("date,y\n2024-01-01,1\n2024-01-02,2\n2024-01-02,2\n")


def test_json_lines_and_arrays_and_workbooks_are_tables():
    rows = [{"day": f"2024-01-{day:02}", "kwh": day / 2} for day in range(1, 8)]
    lines = "\n".join(map(json.dumps, rows))
    sheet = workbook([["day", "kwh"], *(list(row.values()) for row in rows)])
    for content in (lines, "\ufeff" + lines, json.dumps(rows), sheet):
        assert table(content).values[:, 0].tolist() == [row["kwh"] for row in rows]
    with pytest.raises(DataError, match="JSON is damaged"):
        table('{"day": "2024')


def test_a_workbook_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtraError) as caught:
        table(workbook([["day", "y"], ["2024-01-01", 1]]))
    assert caught.value.exit_code == 5
    assert "forecast[excel]" in caught.value.hint


def test_the_encoding_is_remembered_and_a_mark_overrules_it():
    text = "datum,größe\n2024-01-01,1\n2024-01-02,2\n"
    found = table(text.encode("cp1252"), encoding="cp1252")
    assert found.layout.encoding == "cp1252"
    again = found.layout.options()
    for data in (text.encode("cp1252"), text.encode("utf-8-sig")):
        assert read(io.BytesIO(data), again, columns=("größe",)).columns == ("größe",)
    assert recipe.reading(["data.encoding=utf-8"]) == {"encoding": "utf-8"}
    with pytest.raises(UsageError, match=r"train\.epochs cannot be changed"):
        recipe.reading(["train.epochs=3"])


def test_a_recipe_of_init_fits_every_model_and_proposes_columns(tmp_path):
    path, written = tmp_path / "shops.csv", tmp_path / "shops.toml"
    ahead = "".join(f"2024-01-{day},{shop},n,,1\n" for day in (21, 22) for shop in "ac")
    path.write_text("date,shop,region,sales,promo\n" + SHOPS + ahead)
    resolved = recipe.load(str(path))
    found = suggest(str(path), resolved.table)
    assert (found.id, found.target, found.static) == ("shop", ("sales",), ("region",))
    assert found.known_future == ("promo",)
    resolved = resolved.replace("data", id="shop", target=("sales",))
    text = write_recipe(resolved, read(path, resolved.table), found)
    assert '# static = ["region"]' in text
    assert '# known_future = ["promo"]' in text
    written.write_text(text)
    for name in (name for name, info in MODELS.items() if info.kind == "series"):
        assert recipe.load(written, model=name).model == name
    # twenty days: four weeks back do not fit
    window = recipe.load(written).window
    assert window.lookback + window.horizon <= 14
