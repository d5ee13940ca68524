"""Lists of keys: how they are split, what is refused, and that they are never held as a whole."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from replicator.bulk.keylist import BLOCK, LONGEST_KEY, STDIN, check_keys, read_keys
from replicator.errors import ConfigurationError


def keys_of(tmp_path: Path, data: bytes) -> list[str]:
    path = tmp_path / "keys"
    path.write_bytes(data)
    return list(read_keys(path))


def refusal_of(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "keys"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as refusal:
        check_keys(path)
    return str(refusal.value)


def test_each_line_is_a_key_and_the_last_one_needs_no_end(tmp_path):
    assert keys_of(tmp_path, b"a\nb/c\nd") == ["a", "b/c", "d"]
    assert keys_of(tmp_path, b"a\nb/c\nd\n") == ["a", "b/c", "d"]


def test_a_key_is_taken_literally(tmp_path):
    awkward = [
        " a ",
        "a\tb",
        "a+b",
        "a%20b",
        '"a"',
        "'",
        "# a",
        "a,b",
        "/a",
        "a\\n",
        "ä/日本/😀",
        "\u2028",
        "\x85",
        "-",
    ]
    assert keys_of(tmp_path, "\n".join(awkward).encode()) == awkward


def test_empty_lines_are_skipped_and_an_empty_list_is_one_without_keys(tmp_path):
    assert keys_of(tmp_path, b"\n\na\n\nb\n\n") == ["a", "b"]
    assert keys_of(tmp_path, b"\r\n\r\na\r\n") == ["a"]
    assert keys_of(tmp_path, b"\0a\0\0") == ["a"]
    assert keys_of(tmp_path, b"") == []
    assert keys_of(tmp_path, b"\xef\xbb\xbf") == []


def test_keys_that_end_with_nul_may_hold_line_breaks(tmp_path):
    assert keys_of(tmp_path, b"a\nb\0c\r\n\0d\r\0") == ["a\nb", "c\r\n", "d\r"]
    assert keys_of(tmp_path, b"a\0b") == ["a", "b"]


def test_a_list_of_which_all_lines_end_like_on_windows_was_made_there(tmp_path):
    assert keys_of(tmp_path, b"a\r\nb\r\nc") == ["a", "b", "c"]
    assert keys_of(tmp_path, b"a\r\n") == ["a"]


def test_a_carriage_return_belongs_to_the_key_when_other_lines_have_none(tmp_path):
    assert keys_of(tmp_path, b"folder/Icon\r\nfolder/a\n") == ["folder/Icon\r", "folder/a"]
    assert keys_of(tmp_path, b"a\rb\r\r\nc\n") == ["a\rb\r\r", "c"]
    assert keys_of(tmp_path, b"Icon\r") == ["Icon\r"]


def test_only_one_carriage_return_is_the_end_of_a_line(tmp_path):
    assert keys_of(tmp_path, b"Icon\r\r\na\r\n") == ["Icon\r", "a"]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_key(tmp_path):
    assert keys_of(tmp_path, b"\xef\xbb\xbfa\r\n\xef\xbb\xbfb\r\n") == ["a", "\ufeffb"]


def test_keys_are_whole_wherever_the_blocks_meet(tmp_path):
    for length in range(BLOCK - 9, BLOCK + 9):
        keys = ["x" * 1000] * (length // 1001) + ["y" * (length % 1001 or 1), "ä", "z"]
        for end in (b"\n", b"\r\n", b"\0"):
            assert keys_of(tmp_path, end.join(key.encode() for key in keys)) == keys


def test_nothing_is_lost_when_a_block_ends_within_the_end_of_the_longest_key(tmp_path):
    ahead = ["x" * 100] * 630
    ahead.append("y" * (BLOCK - LONGEST_KEY - 1 - 630 * 102 - 2))
    keys = [*ahead, "k" * LONGEST_KEY, "z"]
    data = b"".join(key.encode() + b"\r\n" for key in keys)
    assert data[BLOCK - 1 : BLOCK + 1] == b"\r\n"
    assert keys_of(tmp_path, data) == keys


def test_a_key_of_the_greatest_length_is_taken_and_a_longer_one_refused(tmp_path):
    longest = "ä" * (LONGEST_KEY // 2)
    assert keys_of(tmp_path, longest.encode()) == [longest]
    assert keys_of(tmp_path, f"{longest}\r\n".encode() * 200) == [longest] * 200
    refusal = refusal_of(tmp_path, f"a\nb\n{longest}x\n".encode())
    assert f"--keys {tmp_path}/keys: line 3 " in refusal
    assert "1,024" in refusal


def test_a_line_without_end_is_refused_without_reading_it_all():
    class Endless(io.RawIOBase):
        asked = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.asked += len(buffer)
            assert self.asked < 100 * BLOCK
            buffer[:] = b"x" * len(buffer)
            return len(buffer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Endless())))
        with pytest.raises(ConfigurationError, match="line 1 is longer"):
            next(read_keys(STDIN))


def test_what_is_not_utf_8_is_refused_with_its_line(tmp_path):
    assert "line 3 is not UTF-8" in refusal_of(tmp_path, b"a\n\nb\xff\nc\n")
    assert "key 2 is not UTF-8" in refusal_of(tmp_path, b"a\nb\0\xe4\0")
    assert "line 1 is not UTF-8" in refusal_of(tmp_path, b"\xed\xa0\x80\n")
    assert "UTF-8" in refusal_of(tmp_path, "a\r\nb\r\n".encode("utf-16"))


def test_a_nul_byte_in_a_list_of_lines_is_refused(tmp_path):
    refusal = refusal_of(tmp_path, b"a\n" * BLOCK + b"b\0c\n")
    assert f"line {BLOCK + 1} has a NUL" in refusal


def test_a_list_that_cannot_be_read_is_a_wrong_setting(tmp_path):
    for path, reason in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        for use in (check_keys, lambda path: next(read_keys(path))):
            with pytest.raises(ConfigurationError, match=rf"^--keys {path}: {reason}"):
                use(path)


def test_a_dash_is_the_standard_input_which_is_left_open_and_not_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("./-").write_bytes(b"a file of that name\n")
    stdin = io.TextIOWrapper(io.BytesIO(b"a\nb\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    check_keys(STDIN)
    assert list(read_keys(STDIN)) == ["a", "b"]
    assert not stdin.buffer.closed


def test_a_process_without_standard_input_is_told_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ConfigurationError, match="there is no standard input"):
        next(read_keys(STDIN))


def test_a_pipe_is_not_used_up_by_the_check(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    check_keys(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a\nb\n",))
    writer.start()
    assert list(read_keys(path)) == ["a", "b"]
    writer.join()


def test_the_check_accepts_a_good_list_and_leaves_it_to_be_read(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"a\nb\n")
    check_keys(path)
    assert list(read_keys(path)) == ["a", "b"]
