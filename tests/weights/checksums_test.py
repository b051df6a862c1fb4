"""Tests of a model folder's checksums: they are sha256sum's, and a flipped byte is named."""

import shutil
import subprocess

import pytest

from jssd.weights import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}\n")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    checksums.write(tmp_path)
    return tmp_path


def test_a_whole_folder_passes_and_sha256sum_agrees(folder):
    checksums.verify(folder)
    if shutil.which("sha256sum"):
        subprocess.run(
            ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, text=True
        )


def test_a_flipped_byte_and_a_lost_file_are_named(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing, model.safetensors has other"):
        checksums.verify(folder)


@pytest.mark.parametrize("line", ["nonsense", f"{'0' * 64}  ../model", f"{'0' * 64}  "])
def test_a_line_that_is_no_checksum_is_named(folder, line):
    with open(folder / "SHA256SUMS", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"SHA256SUMS:3 is not a line"):
        checksums.verify(folder)


def test_a_folder_without_checksums_is_taken_as_it_is(tmp_path):
    checksums.verify(tmp_path)
