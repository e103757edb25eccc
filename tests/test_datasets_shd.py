"""SHD's layout: what is read and written, against tonic and h5py; and every way in which a file can be wrong."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tonic
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.datasets import EVENT_DTYPE, SHD, SSC, Joined, RanvierDigits, SpikeFile, SpikeFileError, write_shd
from ranvier.datasets import published as published_module
from ranvier.datasets import shd_check as shd_module
from ranvier.datasets.events import to_microseconds
from ranvier.datasets.known_files import digest
from ranvier.datasets.published import SHD_FILES, SSC_FILES, Published
from ranvier.errors import ConfigError, DataError

KEYS = ("zero", "one", "fünf")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shd_module, "_checks", {})
    return tmp_path / "cache"


def write(path: Path, **changes: Any) -> Path:
    """Three small samples, the second of them empty; ``changes`` replace what is written, None leaves it out."""
    rows: dict[str, Any] = {
        "spikes/times": [[0.0, 0.1, 0.5], [], [0.25, 1.25]],
        "spikes/units": [[0, 699, 3], [], [5, 5]],
        "labels": [0, 2, 1],
        "extra/speaker": [4, 4, 7],
        "extra/keys": np.array([k.encode() for k in KEYS]),
    }
    rows.update({name.replace("__", "/"): value for name, value in changes.items()})
    with h5py.File(path, "w") as file:
        for name, value in rows.items():
            if value is None:
                continue
            if name in ("spikes/times", "spikes/units") and isinstance(value, list):
                element = np.float16 if name == "spikes/times" else np.int64
                dataset = file.create_dataset(name, (len(value),), h5py.vlen_dtype(element))
                for index, entry in enumerate(value):
                    dataset[index] = np.asarray(entry, element)
            else:
                file[name] = value
    return path


# -- reading ----------------------------------------------------------------------------------------------------------


def test_a_sample_is_tonics_record_and_a_label(tmp_path: Path) -> None:
    file = SpikeFile(write(tmp_path / "a.h5"))
    events, label = file[0]
    assert events.dtype == tonic.datasets.SHD.dtype == EVENT_DTYPE
    assert events["t"].tolist() == [0, int(np.float64(np.float16(0.1)) * 1e6), 500_000]
    assert (events["x"].tolist(), events["p"].tolist(), label) == ([0, 699, 3], [1, 1, 1], 0)
    assert (len(file), file.classes, file.labels.tolist(), file.speakers.tolist()) == (3, KEYS, [0, 2, 1], [4, 4, 7])
    assert file.summary == (5, 1, 1_250_000)
    assert len(file[1][0]) == 0
    assert file[-1][1] == 1
    with pytest.raises(IndexError):
        file[3]


def test_float16_times_do_not_overflow() -> None:
    seconds = np.array([0.05, 0.066, 0.9, 1.25], np.float16)
    with np.errstate(over="ignore"):
        assert np.isinf(seconds * np.float16(1)).sum() == 0  # the numbers themselves are fine
        scaled = seconds * 1e6  # how tonic scaled them: with NumPy 2 this stays float16
    assert np.isinf(scaled).all() == (int(np.__version__.split(".")[0]) >= 2)
    expected = [int(float(s) * 1e6) for s in seconds]
    assert to_microseconds(seconds).tolist() == expected
    assert all(abs(e - t * 1e6) < 600 for e, t in zip(expected, [0.05, 0.066, 0.9, 1.25], strict=True))


def test_real_words_are_what_tonic_reads(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    path = shared_data("fsdd/fsdd_spikes_train.h5")
    folder = tmp_path / "SHD"
    folder.mkdir()
    (folder / "shd_train.h5").symlink_to(path)
    (folder / "shd_train.h5.zip").touch()  # tonic looks for the archive too
    reference = tonic.datasets.SHD(str(tmp_path), train=True)
    mine = SpikeFile(path)
    assert len(mine) == len(reference) == 420
    exact = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for index in (0, 137, 419):
            events, label = mine[index]
            theirs, their_label = reference[index]
            assert label == their_label
            assert np.array_equal(events["x"], theirs["x"])
            exact += np.array_equal(events["t"], theirs["t"])
    if tuple(int(n) for n in tonic.__version__.split(".")[:2]) >= (1, 7):  # earlier releases overflow under NumPy 2
        assert exact == 3
    assert mine.summary.events == 1_637_399
    assert mine.summary.last_us == 861_816


def test_tonic_transforms_apply(tmp_path: Path) -> None:
    smaller = tonic.transforms.Downsample(time_factor=1e-3, spatial_factor=0.2)
    frames = tonic.transforms.ToFrame(sensor_size=(140, 1, 1), event_count=3)
    path = write(tmp_path / "a.h5")
    events, label = SpikeFile(path, transform=smaller, target_transform=lambda y: y + 10)[0]
    assert (events["t"].tolist(), events["x"].tolist(), label) == ([0, 99, 500], [0, 139, 0], 10)
    counts, _ = SpikeFile(path, transform=tonic.transforms.Compose([smaller, frames]))[0]
    assert counts.shape == (1, 1, 140)
    assert (counts[0, 0, 0], counts[0, 0, 139], counts.sum()) == (2, 1, 3)


def test_the_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = SpikeFile(write(tmp_path / "a.h5"))
    opened: list[Any] = []
    original = h5py.File
    monkeypatch.setattr(h5py, "File", lambda *a, **k: opened.append(a) or original(*a, **k))
    file.close()
    for index in (0, 1, 2, 0):
        file[index]
    assert len(opened) == 1


def _sum(file: SpikeFile, index: int, result: Any) -> None:
    result.put((index, int(file[index][0]["t"].sum()), os.getpid()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_loader(tmp_path: Path, method: str) -> None:
    rng = np.random.default_rng(1)
    times = [np.sort(rng.random(500)) for _ in range(16)]
    units = [rng.integers(0, 700, 500) for _ in range(16)]
    path = write_shd(tmp_path / "a.h5", times, units, np.zeros(16, int), np.zeros(16, int), ["a"])
    file = SpikeFile(path)
    expected = [int(file[i][0]["t"].sum()) for i in range(16)]  # open in the parent when the workers start
    loader = torch.utils.data.DataLoader(
        file,  # pyright: ignore[reportArgumentType]  # anything with a length and items
        batch_size=None,
        num_workers=2,
        multiprocessing_context=method,
    )
    assert [int(events["t"].sum()) for events, _ in _plain(loader)] == expected
    assert int(file[3][0]["t"].sum()) == expected[3]


def _plain(loader: Any) -> Any:
    loader.collate_fn = _as_is
    return loader


def _as_is(sample: Any) -> Any:
    return sample


def test_a_fork_does_not_inherit_the_handle(tmp_path: Path) -> None:
    file = SpikeFile(write(tmp_path / "a.h5"))
    file[0]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_sum, args=(file, 2, queue))
    process.start()
    index, total, pid = queue.get()
    process.join()
    assert (index, total) == (2, 1_500_000)
    assert pid != os.getpid()
    assert file._handle is None  # closed before the fork
    assert int(file[2][0]["t"].sum()) == 1_500_000


def test_a_copy_opens_its_own_file(tmp_path: Path) -> None:
    file = SpikeFile(write(tmp_path / "a.h5"))
    copy = pickle.loads(pickle.dumps(file))
    assert copy._handle is None
    assert np.array_equal(copy[0][0], file[0][0])


def test_joined_files_are_one(tmp_path: Path) -> None:
    a, b = SpikeFile(write(tmp_path / "a.h5")), SpikeFile(write(tmp_path / "b.h5", labels=[1, 1, 1]))
    both = Joined(a, b)
    assert both.labels.tolist() == [0, 2, 1, 1, 1, 1]
    assert [int(c) for s in both.chunks() for c in s.counts] == [3, 0, 2, 3, 0, 2]
    other = SpikeFile(write(tmp_path / "c.h5", extra__keys=np.array([b"x", b"y", b"z"])))
    with pytest.raises(DataError, match="class names"):
        Joined(a, other)


# -- what can be wrong ------------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[dict[str, Any], str | None, int | None, str]] = {
    "unequal lengths": ({"spikes__units": [[0, 1], [], [5, 5]]}, "spikes/units", 0, "2 units but 3 times"),
    "unit too large": ({"spikes__units": [[0, 700, 3], [], [5, 5]]}, "spikes/units", 0, "unit 1 is 700"),
    "unit negative": ({"spikes__units": [[0, 1, 3], [], [5, -1]]}, "spikes/units", 2, "unit 1 is -1"),
    "time NaN": ({"spikes__times": [[0, 1, 2], [], [0, np.nan]]}, "spikes/times", 2, "time 1 is not a finite"),
    "time infinite": ({"spikes__times": [[0, 1, np.inf], [], [0, 1]]}, "spikes/times", 0, "time 2 is not a finite"),
    "time negative": ({"spikes__times": [[-0.1, 1, 2], [], [0, 1]]}, "spikes/times", 0, "time 0 is negative"),
    "time unsorted": ({"spikes__times": [[0, 1, 2], [], [1, 0.5]]}, "spikes/times", 2, "time 1 is before"),
    "label without a key": ({"labels": [0, 3, 1]}, "labels", 1, "label 3 has no key"),
    "label negative": ({"labels": [0, 1, -1]}, "labels", 2, "label -1 has no key"),
    "labels not whole": ({"labels": [0.0, 1.0, 2.0]}, "labels", None, "must hold integers"),
    "labels too few": ({"labels": [0, 1]}, "spikes/times", None, "3 samples, but there are 2 labels"),
    "units too few": ({"spikes__units": [[0, 1, 3], []]}, "spikes/units", None, "2 samples"),
    "speakers too few": ({"extra__speaker": [1]}, "extra/speaker", None, "1 entries"),
    "no times": ({"spikes__times": None}, "spikes/times", None, "no such dataset"),
    "no units": ({"spikes__units": None}, "spikes/units", None, "no such dataset"),
    "no labels": ({"labels": None}, "labels", None, "no such dataset"),
    "no speakers": ({"extra__speaker": None}, "extra/speaker", None, "no such dataset"),
    "no keys": ({"extra__keys": None}, "extra/keys", None, "no such dataset"),
    "times a matrix": ({"spikes__times": np.zeros((3, 2))}, "spikes/times", None, "has shape (3, 2)"),
    "times not ragged": ({"spikes__times": np.zeros(3)}, "spikes/times", None, "variable-length floating-point"),
    "keys not text": ({"extra__keys": np.array([b"\xff", b"a", b"b"])}, "extra/keys", None, "not UTF-8"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_file_dataset_and_sample(tmp_path: Path, name: str) -> None:
    changes, dataset, sample, said = FAULTS[name]
    path = write(tmp_path / "wrong.h5", **changes)
    with pytest.raises(SpikeFileError) as caught:
        SpikeFile(path)
    error = caught.value
    assert (error.path, error.dataset, error.sample) == (path, dataset, sample)
    assert said in str(error)
    assert str(path) in str(error)
    if sample is not None:
        assert f"sample {sample}" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_group_in_place_of_a_dataset(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", labels=None)
    with h5py.File(path, "a") as file:
        file.create_group("labels")
    with pytest.raises(SpikeFileError, match="is a group"):
        SpikeFile(path)


def test_not_a_file_not_hdf5(tmp_path: Path) -> None:
    with pytest.raises(SpikeFileError, match="no such file"):
        SpikeFile(tmp_path / "none.h5")
    with pytest.raises(SpikeFileError, match="is a folder"):
        SpikeFile(tmp_path)
    (tmp_path / "text.h5").write_text("times, units\n0.1, 5\n")
    with pytest.raises(SpikeFileError, match="not an HDF5 file"):
        SpikeFile(tmp_path / "text.h5")
    (tmp_path / "empty.h5").touch()
    with pytest.raises(SpikeFileError, match="not an HDF5 file"):
        SpikeFile(tmp_path / "empty.h5")


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times, units = [np.sort(rng.random(300)) for _ in range(40)], [rng.integers(0, 700, 300) for _ in range(40)]
    whole = write_shd(tmp_path / "a.h5", times, units, np.zeros(40, int), np.zeros(40, int), ["a"]).read_bytes()
    path = tmp_path / "cut.h5"
    for share in np.linspace(0.02, 0.999, 25):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SpikeFileError, match=r"truncated|not an HDF5"):
            SpikeFile(path)


def test_damaged_content_gives_a_typed_error_or_passes_the_check(tmp_path: Path) -> None:
    """Zeros written over a file never raise anything else than the typed error, and are found in most places."""
    rng = np.random.default_rng(0)
    times, units = [np.sort(rng.random(200)) + 0.1 for _ in range(30)], [rng.integers(1, 700, 200) for _ in range(30)]
    whole = write_shd(tmp_path / "a.h5", times, units, np.zeros(30, int), np.zeros(30, int), ["a"]).read_bytes()
    found = 0
    for start in np.linspace(0, len(whole) - 256, 40).astype(int):
        path = tmp_path / f"damaged{start}.h5"
        path.write_bytes(whole[:start] + bytes(256) + whole[start + 256 :])
        try:
            SpikeFile(path)
        except SpikeFileError:
            found += 1
    assert found >= 15  # zeros in the units are legal units, in the times they are out of order


def test_another_unit_taken_for_seconds(tmp_path: Path) -> None:
    arguments: Any = ([[0.5, 2e6]], [[1, 2]], [0], [0], ["a"])
    with pytest.raises(SpikeFileError, match=r"sample 0: time 1 is 2e\+06 s; times are in seconds"):
        write_shd(tmp_path / "a.h5", *arguments, time_dtype=np.float32)


def test_unsorted_times_can_be_sorted_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", spikes__times=[[0.5, 0.0, 0.25], [], [1, 0.5]])
    with pytest.raises(SpikeFileError, match="sort=True"):
        SpikeFile(path)
    file = SpikeFile(path, sort=True)
    assert file[0][0]["t"].tolist() == [0, 250_000, 500_000]
    assert file[0][0]["x"].tolist() == [699, 3, 0]
    assert file[2][0]["t"].tolist() == [500_000, 1_000_000]


# -- the check is remembered ------------------------------------------------------------------------------------------


def test_the_check_runs_once_per_content(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[Path] = []
    original = shd_module.check
    monkeypatch.setattr(shd_module, "check", lambda file: checks.append(file.path) or original(file))
    path = write(tmp_path / "a.h5")
    SpikeFile(path)
    SpikeFile(path)
    assert len(checks) == 1
    monkeypatch.setattr(shd_module, "_checks", {})  # another process
    assert SpikeFile(path).summary.events == 5
    assert len(checks) == 1
    for record in (own_cache / "checked").glob("*.json"):
        record.write_text("{")
    monkeypatch.setattr(shd_module, "_checks", {})
    SpikeFile(path)
    assert len(checks) == 2  # a damaged record counts for nothing
    write(path, spikes__times=[[0.0, 0.1, 0.5], [], [0.5, 0.25]])
    with pytest.raises(SpikeFileError, match="sample 2"):
        SpikeFile(path)
    assert len(checks) == 3


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flat").touch()
    monkeypatch.setenv("RANVIER_CACHE", str(tmp_path / "flat"))
    assert SpikeFile(write(tmp_path / "a.h5")).summary.events == 5


# -- writing ----------------------------------------------------------------------------------------------------------

sample = st.lists(st.tuples(st.floats(0, 60, width=16), st.integers(0, 699)), max_size=20).map(
    lambda events: sorted(events, key=lambda e: e[0])
)


@given(st.lists(sample, min_size=1, max_size=6), st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, samples: list[Any], data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, 2), min_size=len(samples), max_size=len(samples)))
    path = write_shd(
        tmp_path / "w.h5",
        [[t for t, _ in s] for s in samples],
        [np.array([u for _, u in s], int) for s in samples],
        labels,
        np.arange(len(samples)),
        KEYS,
    )
    with h5py.File(path) as file:  # h5py as the referee of the layout
        times, units = file["spikes/times"], file["spikes/units"]
        assert isinstance(times, h5py.Dataset)
        assert isinstance(units, h5py.Dataset)
        assert h5py.check_vlen_dtype(times.dtype) == np.float16
        assert h5py.check_vlen_dtype(units.dtype) == np.uint16
        for index, entry in enumerate(samples):
            assert times[index].tolist() == [t for t, _ in entry]
            assert units[index].tolist() == [u for _, u in entry]
    read = SpikeFile(path)
    assert read.labels.tolist() == labels
    assert read.classes == KEYS
    assert [len(e) for e, _ in read] == [len(s) for s in samples]


def test_meta_and_determinism(tmp_path: Path) -> None:
    arguments: Any = ([[0.1]], [[3]], [0], [5], ["a"])
    meta = {"licence": "CC-BY-4.0", "version": 2, "speaker_names": ["Zoë", "b"], "meta_info/age": [30, 40]}
    a = write_shd(tmp_path / "a.h5", *arguments, meta)
    b = write_shd(tmp_path / "b.h5", *arguments, meta)
    assert a.read_bytes() == b.read_bytes()
    file = SpikeFile(a)
    assert file.attributes == {"licence": "CC-BY-4.0", "version": 2}
    assert [n.decode() for n in file.extra("speaker_names")] == ["Zoë", "b"]
    assert file.extra("meta_info/age").tolist() == [30, 40]
    with pytest.raises(SpikeFileError, match="no such dataset"):
        file.extra("meta_info/height")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([[0.2, 0.1]], [[1, 2]], [0], [0], ["a"]), "sample 0: time 1 is before"),
        (([[0.1]], [[700]], [0], [0], ["a"]), "unit 0 is 700"),
        (([[0.1]], [[1, 2]], [0], [0], ["a"]), "2 units for 1 times"),
        (([[0.1]], [[1.5]], [0], [0], ["a"]), "not integers"),
        (([[0.1]], [[1]], [1], [0], ["a"]), "labels, sample 0"),
        (([[0.1]], [[1]], [0], [-1], ["a"]), "extra/speaker, sample 0"),
        (([[0.1]], [[1]], [0, 0], [0], ["a"]), "2 entries given for 1 samples"),
        (([[1e5]], [[1]], [0], [0], ["a"]), "not a finite"),  # float16 cannot hold it
    ],
)
def test_the_writer_refuses_what_the_reader_would(tmp_path: Path, arguments: Any, said: str) -> None:
    path = tmp_path / "w.h5"
    path.write_text("old")
    with pytest.raises(SpikeFileError, match=said), np.errstate(over="ignore"):
        write_shd(path, *arguments)
    assert path.read_text() == "old"
    assert list(tmp_path.glob("*.h5")) == [path]


# -- the published files ----------------------------------------------------------------------------------------------


def test_the_published_facts_are_tonics() -> None:
    theirs = tonic.datasets.SHD
    assert (SHD_FILES["train"].md5, SHD_FILES["test"].md5) == (theirs.train_md5, theirs.test_md5)
    ssc = tonic.datasets.SSC
    assert [SSC_FILES[s].md5 for s in ("train", "valid", "test")] == [ssc.train_md5, ssc.valid_md5, ssc.test_md5]
    assert [SSC_FILES[s].url for s in ("train", "valid", "test")] == [
        ssc.base_url + z for z in (ssc.train_zip, ssc.valid_zip, ssc.test_zip)
    ]
    assert [f.samples for f in (*SHD_FILES.values(), *SSC_FILES.values())] == [8156, 2264, 75466, 9981, 20382]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small stand-in for the published site on this machine, with a true md5."""
    folder = tmp_path / "site"
    folder.mkdir()
    with zipfile.ZipFile(folder / "shd_train.h5.zip", "w") as archive:
        archive.write(write(tmp_path / "made.h5"), "shd_train.h5")
    md5 = digest(folder / "shd_train.h5.zip", "md5")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(published_module, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setitem(SHD_FILES, "train", Published("shd_train.h5", md5, 3))
    yield folder
    server.shutdown()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_download_checks_and_unpacks(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "root"
    data = SHD(root, "train")
    assert len(data) == 3
    assert capsys.readouterr().out == ""
    assert (root / "shd_train.h5").stat().st_size == (tmp_path / "made.h5").stat().st_size
    (root / "shd_train.h5").unlink()
    for path in site.iterdir():
        path.unlink()
    assert len(SHD(root, "train")) == 3  # from the archive that is there


def test_download_errors(tmp_path: Path, site: Path) -> None:
    with pytest.raises(DataError, match="allow the download"):
        SHD(tmp_path / "root", "train", download=False)
    with pytest.raises(DataError, match=r"cannot download .*shd_test"):
        SHD(tmp_path / "root", "test")
    with pytest.raises(ConfigError, match="no split 'valid'; it has train, test"):
        SHD(tmp_path / "root", "valid")
    assert "valid" in SSC.files
    (site / "shd_train.h5.zip").write_bytes(b"something else")
    with pytest.raises(DataError, match="md5 is"):
        SHD(tmp_path / "root", "train")
    assert not (tmp_path / "root" / "shd_train.h5").exists()


def test_a_published_file_with_another_count_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "shd_test.h5")
    with pytest.raises(SpikeFileError, match="has 3 samples, but the published file has 2264"):
        SHD(tmp_path, "test")


def test_ranvier_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = RanvierDigits("train"), RanvierDigits("test")
    assert train.classes == test.classes
    assert len(train.classes) == 20
    assert not set(train.speakers.tolist()) & set(test.speakers.tolist())
    assert np.bincount(test.labels).min() > 0
    assert train.about["licence"] == "CC-BY-4.0"
    with pytest.raises(ConfigError, match="no split"):
        RanvierDigits("valid")
    monkeypatch.setattr(RanvierDigits, "folder", tmp_path)
    with pytest.raises(DataError, match="incomplete"):
        RanvierDigits("test")
    write(tmp_path / "ranvier_digits_test.h5")
    (tmp_path / "ranvier_digits.json").write_text(json.dumps({"files": {"ranvier_digits_test.h5": {"sha256": "0"}}}))
    with pytest.raises(DataError, match="the file was changed"):
        RanvierDigits("test")
