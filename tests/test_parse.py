"""Files that change others, and what a change may not do."""

import json

import pytest

from trtseg.parse import at_least, changed, fractions, read_derived


def write(folder, **files):
    for name, values in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))


def test_a_file_changes_its_base_and_that_one_its_own(tmp_path):
    write(
        tmp_path,
        first={"a": {"b": 1, "c": [{"d": 2}, {"d": 3}]}, "e": [4, 5]},
        second={"base": "first.json", "a.b": 6, "a.c.1.d": 7},
        other__third={"base": "../second.json", "e.0": 8, "a.new.f": 9, "g": None},
    )
    assert read_derived(tmp_path / "first.json")["e"] == [4, 5]
    assert read_derived(tmp_path / "other" / "third.json") == {
        "a": {"b": 6, "c": [{"d": 2}, {"d": 7}], "new": {"f": 9}}, "e": [8, 5], "g": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"base": "first.json", "a.b.c": 1}, "a.b.c: there is no such place"),
        ({"base": "first.json", "e.2": 1}, "e.2: there is no such place"),
        ({"base": "first.json", "e.last": 1}, "e.last: there is no such place"),
        ({"base": "second.json"}, "stands upon this file itself"),
        ({"base": "list.json"}, "expected an object"),
        ({"base": "bad.json"}, "bad.json: not JSON"),
    ],
)
def test_what_cannot_be_derived_names_the_file(values, message, tmp_path):
    write(tmp_path, first={"a": {"b": 1}, "e": [4, 5]}, list=[1], second=values)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=message) as caught:
        read_derived(tmp_path / "second.json")
    assert str(tmp_path) in str(caught.value)


def test_two_files_cannot_stand_upon_each_other(tmp_path):
    write(tmp_path, one={"base": "two.json"}, two={"base": "one.json"})
    with pytest.raises(ValueError, match="stands upon this file itself"):
        read_derived(tmp_path / "one.json")


def test_a_missing_base_is_named(tmp_path):
    write(tmp_path, one={"base": "two.json"})
    with pytest.raises(FileNotFoundError, match=r"two\.json"):
        read_derived(tmp_path / "one.json")


def test_changes_leave_the_original():
    values = {"a": {"b": [1]}}
    assert changed(values, {"a.b": 2}) == {"a": {"b": 2}}
    assert values == {"a": {"b": [1]}}


def test_not_a_number_is_in_no_range():
    class Config:
        share = float("nan")

    with pytest.raises(ValueError, match="share: expected at least 0"):
        at_least(Config, 0, "share")
    with pytest.raises(ValueError, match="share: expected in"):
        fractions(Config, "share")
