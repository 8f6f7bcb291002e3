"""Which line is a record, which record counts, and a file that is read as it grows."""

import json
from collections import Counter

import pandas as pd
import pytest
from ledger_fixture import Design, write_ledger

from analysis.records import lines
from analysis.records.ledger import load_ledger, read_records
from analysis.records.lines import Lines, parsed, take

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1), images=20)


def test_a_record_has_a_cell_and_a_known_status():
    for status in ("done", "failed", "stopped"):
        assert parsed(json.dumps({"cell_id": "a", "status": status}).encode()) == {"cell_id": "a", "status": status}
    for text in (b"", b"nonsense", b"[1]", b"{", b'{"cell_id": "a"}', b'{"cell_id": "a", "status": "ok"}', b"\xff"):
        assert parsed(text) is None
    assert parsed(b'{"cell_id": 1, "status": "done"}') is None


def test_the_last_record_counts_but_no_failure_replaces_a_finished_cell():
    latest = {}
    story = [
        ("a", "failed"),
        ("b", "done"),
        ("a", "stopped"),
        ("b", "failed"),
        ("a", "done"),
        ("a", "failed"),
        ("b", "done"),
    ]
    for place, (cell_id, status) in enumerate(story):
        take(latest, place, {"cell_id": cell_id, "status": status})
    assert {cell_id: place for cell_id, (place, _) in latest.items()} == {"a": 4, "b": 6}
    assert list(latest) == ["a", "b"]


@pytest.fixture
def written(tmp_path):
    """The lines of a ledger, and a path to write some of them to."""
    store = write_ledger(tmp_path / "store", DESIGN)
    return (store / "ledger" / "records.jsonl").read_bytes().splitlines(keepends=True), tmp_path / "records.jsonl"


def test_a_line_is_parsed_and_validated_once_however_often_the_file_is_read(written, monkeypatch):
    whole, path = written
    calls = Counter()

    def count(name):
        real = getattr(lines, name)

        def counted(value):
            calls[name] += 1
            return real(value)

        monkeypatch.setattr(lines, name, counted)

    count("parsed")
    count("validate_record")
    reader = Lines(path)
    assert reader.latest() == {} and reader.reading() == ([], 0)
    for count in range(1, len(whole) + 1):
        path.write_bytes(b"".join(whole[:count]))
        found, torn = reader.reading()
        assert (found, torn) == ([json.loads(line) for line in whole[:count]], 0)
        assert len(reader.latest()) == count
    assert calls == {"parsed": len(whole), "validate_record": len(whole)}


def test_an_unended_line_counts_where_it_is_whole_and_is_looked_at_again(written):
    whole, path = written
    reader = Lines(path)
    path.write_bytes(whole[0] + whole[1][:-1])
    assert len(reader.reading().records) == 2 and reader.torn is None
    path.write_bytes(whole[0] + whole[1] + whole[2][:50])
    assert len(reader.reading().records) == 2 == len(reader.latest()) and reader.torn == 3
    path.write_bytes(whole[0] + whole[1] + whole[2])
    assert len(reader.reading().records) == 3 and reader.torn is None


def test_a_record_against_the_schema_is_named_every_time_but_not_once_replaced(written):
    whole, path = written
    bad = json.loads(whole[1]) | {"seed": "0"}
    path.write_bytes(whole[0] + json.dumps(bad).encode() + b"\n" + whole[2])
    reader = Lines(path)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{path}: line 2: record.seed must be int, got '0'"):
            reader.reading()
        assert len(reader.latest()) == 3
    with path.open("ab") as file:
        file.write(whole[1])
    assert [r["cell_id"] for r in reader.reading().records] == [json.loads(line)["cell_id"] for line in whole[:3]]


def test_records_that_have_been_read_make_the_same_table(tmp_path, monkeypatch):
    store = write_ledger(tmp_path, DESIGN)
    expected, read = load_ledger(store, study=DESIGN.name), read_records(store)
    monkeypatch.setattr(Lines, "reading", lambda self: pytest.fail("the records were at hand"))
    found = load_ledger(store, study=DESIGN.name, records=read)
    pd.testing.assert_frame_equal(found, expected)
    assert found.attrs == expected.attrs
