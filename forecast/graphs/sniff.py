"""What the first lines of a text file tell of events, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

# What the columns are called in the wild, in lower case; the first that is found is taken.
ROLES = {
    "src": ("src", "source", "u", "from", "from_node", "user_id", "user"),
    "dst": ("dst", "target", "i", "v", "to", "to_node", "item_id", "item"),
    "t": ("t", "ts", "time", "timestamp", "time_since_epoch", "date"),
    "weight": ("weight", "w", "rating", "trust_index"),
    "label": ("label", "state_label"),
}
# The last column of a header of JODIE, whose rows have a cell for each feature.
JODIE_FEATURES = "comma_separated_list_of_features"
_TEXTS = (".csv", ".txt", ".tsv")


def is_number(cell: str) -> bool:
    """Whether a cell of text is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def cells_of(line: str) -> tuple[list[str], str]:
    """Cut a line into cells; return them with the mark between them."""
    separator = next((mark for mark in (",", "\t", ";") if mark in line), " ")
    return line.strip().split(separator), separator


def events_in(path: Path) -> str:
    """Name the columns that make a file one of events between nodes; empty if it is none.

    A table without a header is one if its first two cells are whole numbers and all others numbers.
    """
    if path.suffix.lower() not in _TEXTS:
        return ""
    try:
        with path.open(encoding="utf-8-sig") as file:
            cells, _ = cells_of(file.readline(1 << 16))
    except (OSError, UnicodeDecodeError):
        return ""
    lower = [cell.strip().lower() for cell in cells]
    named = [
        next((word for word in ROLES[role] if word in lower), "") for role in ("src", "dst", "t")
    ]
    if all(named):
        return f"columns {', '.join(named)}"
    bare = len(cells) >= 3 and all(map(is_number, cells))
    if bare and all(cell.lstrip("-").isdigit() for cell in cells[:2]):
        return "two whole numbers and a time in each line"
    return ""
