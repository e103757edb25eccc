"""Sensor recordings: windows, resampling, splits by subject, normalisation, and the published readers."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ranvier.datasets import (
    Normalizer,
    SensorData,
    SensorError,
    SensorRecording,
    cut_windows,
    leave_groups_out,
    normalised,
    read_seglearn,
    read_sensors,
    read_spsw,
    read_uci_har,
    read_wisdm,
    refuse_overlap,
    resampled,
    train_test,
)
from ranvier.datasets.known_files import known_bytes, packaged_file
from ranvier.errors import ConfigError, DataError

AXES = ("acc_x", "acc_y")


def recording(
    values: NDArray[np.float32] | None = None, subject: int = 1, rate: float = 20.0, labels: object = 0, name: str = "r"
) -> SensorRecording:
    values = np.zeros((100, 2), np.float32) if values is None else values
    return SensorRecording(values, np.broadcast_to(np.asarray(labels, np.int64), len(values)), subject, rate, name)


def data(*recordings: SensorRecording) -> SensorData:
    return SensorData(recordings, AXES, ("rest", "walk"))


def people(number: int, seed: int = 0) -> SensorData:
    rng = np.random.default_rng(seed)
    made = []
    for subject in range(number):
        values = rng.normal(subject, 1 + subject, (60 + 10 * subject, 2)).astype(np.float32)
        made.append(recording(values, subject, labels=rng.integers(0, 2, len(values)), name=f"p{subject}"))
    return data(*made)


# -- arms -------------------------------------------------------------------------------------------------------------


def test_recordings_of_one_arm_look_like_those_of_the_other() -> None:
    """By the axes' names, in whatever order. That the signs are a mirror's: test_experiments_har.py."""
    names = ("gyro_z", "acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y")
    values = np.arange(1.0, 13).reshape(2, 6).astype(np.float32)
    made = SensorData(
        tuple(SensorRecording(values, np.zeros(2, np.int64), 1, 20.0, arm, arm) for arm in ("left", "right")),
        names,
        ("rest",),
    )
    one = made.on_one_arm()
    assert [r.arm for r in one.recordings] == ["right", "right"]
    np.testing.assert_array_equal(one.recordings[1].values, values)
    np.testing.assert_array_equal(one.recordings[0].values, values * [-1, -1, 1, 1, 1, -1])
    np.testing.assert_array_equal(one.on_one_arm("left").recordings[1].values, values * [-1, -1, 1, 1, 1, -1])
    assert made.recordings[0].arm == "left"


def test_an_arm_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(SensorError, match=r"recording r, subject 7.*arm"):
        SensorData((recording(subject=7),), AXES, ("rest",)).on_one_arm()
    with pytest.raises(ConfigError, match="left, right"):
        data(recording()).on_one_arm("both")
    with pytest.raises(ConfigError, match="no mirror for the axis 'heart'"):
        SensorData(
            (SensorRecording(np.zeros((5, 1), np.float32), np.zeros(5, np.int64), 1, 20.0, "r", "left"),),
            ("heart",),
            ("rest",),
        ).on_one_arm()


# -- windows ----------------------------------------------------------------------------------------------------------


def test_windows_are_the_recording_s_own_samples() -> None:
    values = np.arange(200, dtype=np.float32).reshape(100, 2)
    windows = cut_windows(data(recording(values, 4), recording(values + 500, 7)), 2000, 500)
    assert windows.x.shape == (2 * 7, 40, 2) and windows.x.dtype == np.float32
    for row in range(len(windows)):
        source = values + 500 * int(windows.recordings[row])
        start = int(windows.starts[row])
        np.testing.assert_array_equal(windows.x[row], source[start : start + 40])
    assert windows.starts[:7].tolist() == [0, 10, 20, 30, 40, 50, 60]
    assert set(zip(windows.recordings.tolist(), windows.subjects.tolist(), strict=True)) == {(0, 4), (1, 7)}
    x, labels = windows.batch([3, 8])
    assert tuple(x.shape) == (40, 2, 2) and labels.tolist() == [0, 0]
    np.testing.assert_array_equal(x[:, 1].numpy(), windows.x[8])


def test_a_window_has_the_label_of_most_of_its_samples() -> None:
    labels = np.repeat([0, 1], [45, 55])
    windows = cut_windows(data(recording(labels=labels)), 2000, 500)
    counts = [int(labels[s : s + 40].sum()) for s in windows.starts]
    assert windows.labels.tolist() == [int(c > 20) for c in counts] == [0, 0, 0, 1, 1, 1, 1]
    pure = cut_windows(data(recording(labels=labels)), 2000, 500, purity=1.0)
    assert pure.starts.tolist() == [0, 50, 60] and pure.labels.tolist() == [0, 1, 1]


def test_window_longer_than_a_recording_is_refused_by_name() -> None:
    both = data(recording(name="long"), recording(np.zeros((30, 2), np.float32), 9, name="short"))
    with pytest.raises(SensorError, match=r"recording short, subject 9: lasts 1500 ms.*window of 2000 ms") as caught:
        cut_windows(both, 2000, 500)
    assert (caught.value.recording, caught.value.subject) == ("short", 9)
    assert set(cut_windows(both, 2000, 500, skip_short=True).recordings.tolist()) == {0}
    with pytest.raises(SensorError, match="no window"):
        cut_windows(data(both.recordings[1]), 2000, 500, skip_short=True)


@pytest.mark.parametrize(
    ("window", "stride", "rate", "purity", "what"),
    [
        (0, 500, 20, 0, "window"),
        (2000, 0, 20, 0, "stride"),
        (2010, 500, 20, 0, "window"),
        (float("nan"), 500, 20, 0, "window"),
        (2000, 500, -20, 0, "window"),
        (2000, 500, 20, 1.5, "purity"),
    ],
)
def test_wrong_windows(window: float, stride: float, rate: float, purity: float, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        cut_windows(data(recording()), window, stride, rate=rate, purity=purity)


# -- checks -----------------------------------------------------------------------------------------------------------


def test_nan_names_subject_and_sample() -> None:
    values = np.zeros((100, 2), np.float32)
    values[37, 1] = np.nan
    with pytest.raises(SensorError, match=r"recording r, subject 3, sample 37: acc_y is nan") as caught:
        data(recording(), recording(values, 3))
    assert (caught.value.subject, caught.value.sample) == (3, 37)
    values[37, 1] = np.inf
    with pytest.raises(SensorError, match="sample 37"):
        data(recording(values, 3))


def test_missing_axes_are_refused() -> None:
    with pytest.raises(SensorError, match=r"subject 5: values of shape \(100, 1\).*acc_x, acc_y"):
        data(recording(np.zeros((100, 1), np.float32), 5))
    with pytest.raises(SensorError, match="axis 'gyro_z' is missing; there are acc_x, acc_y"):
        data(recording()).select(["acc_x", "gyro_z"])
    chosen = data(recording(np.array([[1, 2]], np.float32))).select(["acc_y"])
    assert chosen.axes == ("acc_y",) and chosen.recordings[0].values.tolist() == [[2]]


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (lambda: data(), "no recording"),
        (lambda: data(recording(np.zeros((0, 2), np.float32))), "empty"),
        (lambda: data(recording(labels=2)), "label 2 is none of the 2 classes"),
        (lambda: data(recording(rate=0.0)), "rate of 0.0"),
        (
            lambda: data(SensorRecording(np.zeros((5, 2), np.float32), np.zeros(4, np.int64), 1, 20.0, "r")),
            "labels for 5 samples",
        ),
    ],
)
def test_wrong_recordings(wrong: Callable[[], SensorData], what: str) -> None:
    with pytest.raises(SensorError, match=what):
        wrong()


# -- resampling -------------------------------------------------------------------------------------------------------


def test_resampling_keeps_slow_signals_and_removes_fast_ones() -> None:
    t = np.arange(1040) / 104
    slow, fast = np.sin(2 * np.pi * 1.5 * t), np.sin(2 * np.pi * 40 * t)
    made = resampled(recording(np.stack([slow + 9.8, fast], 1).astype(np.float32), rate=104.0), 20.0)
    assert made.rate == 20 and made.values.dtype == np.float32
    at = np.arange(len(made.values)) / 20
    inner = slice(20, -20)
    np.testing.assert_allclose(made.values[inner, 0], (np.sin(2 * np.pi * 1.5 * at) + 9.8)[inner], atol=0.02)
    assert np.abs(made.values[inner, 1]).max() < 0.02  # 40 Hz is beyond the 10 Hz that 20 samples a second can hold
    assert np.abs(made.values[:, 0] - 9.8).max() < 1.2  # gravity does not ring at the ends


def test_resampled_labels_are_those_of_the_same_time() -> None:
    labels = np.repeat([0, 1], [520, 520])  # changes at 5 s
    made = resampled(recording(np.zeros((1040, 2), np.float32), rate=104.0, labels=labels), 20.0)
    assert made.labels.tolist() == [0] * 100 + [1] * 100
    same = recording()
    assert resampled(same, 20.0) is same


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 3**0.5])
def test_wrong_rates(rate: float) -> None:
    with pytest.raises(ConfigError, match="samples a second"):
        resampled(recording(rate=104.0), rate)


# -- subjects ---------------------------------------------------------------------------------------------------------


def test_every_subject_is_held_out_once() -> None:
    subjects = np.repeat(np.arange(18), np.random.default_rng(1).integers(5, 50, 18))
    folds = leave_groups_out(subjects, 5, seed=0)
    held = [set(subjects[f.test].tolist()) for f in folds]
    assert sorted(s for h in held for s in h) == list(range(18)) and {len(h) for h in held} == {3, 4}
    for fold, h in zip(folds, held, strict=True):
        assert not h & set(subjects[fold.train].tolist())
        assert len(fold.train) + len(fold.test) == len(subjects)
    sizes = [len(f.test) for f in folds]
    assert max(sizes) < 1.6 * min(sizes)
    again = leave_groups_out(subjects, 5, seed=0)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(folds, again, strict=True))
    other = leave_groups_out(subjects, 5, seed=1)
    assert any(not np.array_equal(a.test, b.test) for a, b in zip(folds, other, strict=True))
    for number in (1, 19):
        with pytest.raises(DataError, match=f"cannot make {number} folds of 18 subjects"):
            leave_groups_out(subjects, number)


def test_subject_in_train_and_test_is_refused() -> None:
    windows = cut_windows(people(4), 1000, 500)
    with pytest.raises(DataError, match="subject 2 is in both train and test"):
        normalised(windows, windows.take(windows.subjects == 2))
    with pytest.raises(DataError, match="subject 2 is in both train and test"):
        refuse_overlap("subject", train=[1, 2], test=[2])
    with pytest.raises(DataError, match="subject 8 has no sample"):
        train_test(windows, [8])


def test_normalisation_knows_training_subjects_only() -> None:
    windows = cut_windows(people(4), 1000, 500)
    train, test, by = train_test(windows, [3])
    assert by.subjects == (0, 1, 2) and set(test.subjects.tolist()) == {3}
    np.testing.assert_allclose(train.x.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(train.x.std((0, 1)), 1, atol=1e-5)
    assert np.all(np.abs(test.x.mean((0, 1))) > 0.3)  # subject 3 is like nobody else, and stays so
    shifted = windows.x.copy()
    shifted[windows.subjects == 3] += 1000  # whatever the test person does, nothing of the training changes
    moved = type(windows)(**{**vars(windows), "x": shifted})
    np.testing.assert_array_equal(train_test(moved, [3])[0].x, train.x)
    np.testing.assert_array_equal(train_test(moved, [3])[2].mean, by.mean)


def test_bytes_of_a_device() -> None:
    windows = cut_windows(people(4), 1000, 500)
    by = Normalizer.fit(windows)
    made = by.to_bytes(windows.x, 32)
    z = by.apply(windows).x
    inside = np.abs(z) < 3.9
    assert made.dtype == np.uint8 and inside.mean() > 0.99
    np.testing.assert_allclose((made[inside] - 128.0) / 32, z[inside], atol=1 / 64 + 1e-6)
    far = by.mean + by.scale * np.array([[-50.0], [50.0]], np.float32)
    assert by.to_bytes(far, 32).tolist() == [[0, 0], [255, 255]]
    for levels in (0, 128):
        with pytest.raises(ConfigError, match="levels"):
            by.to_bytes(windows.x, levels)
    with pytest.raises(SensorError, match="no window"):
        Normalizer.fit(windows.take([]))


def test_an_axis_that_never_changes_stays_finite() -> None:
    windows = cut_windows(data(recording(np.ones((100, 2), np.float32))), 1000, 500)
    assert not Normalizer.fit(windows).apply(windows).x.any()


# -- readers ----------------------------------------------------------------------------------------------------------


def test_spsw(shared_data: Callable[[str], Path]) -> None:
    found = read_spsw(shared_data("har_spsw/watch_int16.npz"))
    assert len(found) == 173 and len(found.subjects) == 18
    assert found.classes == ("SEATED", "SITTING_DOWN", "STANDING_UP", "TURNING", "WALKING")
    still = np.concatenate([r.values[r.labels == 0] for r in found.recordings])
    assert 9.3 < np.linalg.norm(still[:, :3], axis=1).mean() < 10.3  # m/s²: gravity
    counts = np.bincount(np.concatenate([r.labels for r in found.recordings]))
    assert counts.tolist() == [26361, 25904, 22094, 41042, 89107]  # published samples an activity


def test_spsw_of_another_sha256_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "watch_int16.npz"
    wrong.write_bytes(b"something else")
    digest = hashlib.sha256(b"something else").hexdigest()
    with pytest.raises(DataError, match=f"SHA-256 is {digest}"):
        read_spsw(wrong)
    with pytest.raises(DataError, match="no such file"):
        read_spsw(tmp_path / "nothing.npz")
    with pytest.raises(DataError, match="cannot be read"):
        read_spsw(tmp_path)
    assert known_bytes(wrong, digest) == b"something else"


@pytest.mark.skipif(find_spec("seglearn") is None, reason="seglearn is not installed (pip install 'ranvier[har]')")
def test_seglearn() -> None:
    found = read_seglearn()
    assert len(found) == 140 and found.subjects.tolist() == list(range(1, 11))
    assert found.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert {len(set(r.labels.tolist())) for r in found.recordings} == {1}
    windows = cut_windows(found, 2000, 1000)
    assert windows.x.shape[1:] == (40, 6) and np.bincount(windows.labels).min() > 100
    # a pendulum's arm hangs: gravity lies along the forearm, the other way round on the other arm
    hanging = [r for r in found.recordings if r.labels[0] == 0]
    assert {(r.arm, float(np.sign(r.values[:, 0].mean()))) for r in hanging} == {("left", 1.0), ("right", -1.0)}
    turned = found.on_one_arm().recordings
    assert {float(np.sign(r.values[:, 0].mean())) for r in turned if r.labels[0] == 0} == {-1.0}


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_of_another_sha256_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "watch_dataset.npy"
    np.save(bad, np.array(_Bomb(), dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="SHA-256"):
        read_seglearn(bad)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(_Bomb()))  # it would have gone off
    assert (tmp_path / "exploded").exists()


def test_a_package_that_is_missing_says_how_to_get_it() -> None:
    with pytest.raises(DataError, match=r"no_such_package.*not installed: pip install 'ranvier\[har\]'"):
        packaged_file("no_such_package", "a.npy", "har")
    with pytest.raises(DataError, match="has no such file"):
        packaged_file("numpy", "a.npy", "har")


def wisdm(root: Path, lines: int = 100, gyro: bool = True) -> Path:
    """Two people in WISDM's layout; the gyroscope starts 10 ms later. x of the accelerometer is the time in s."""
    folder = root / "wisdm-dataset" / "raw" / "watch"
    for kind in ("accel", "gyro") if gyro else ("accel",):
        (folder / kind).mkdir(parents=True)
        for subject in (1600, 1601):
            made = []
            for letter in "PA":
                for i in range(lines):
                    t = 0.05 * i + (0.01 if kind == "gyro" else 0)
                    ns = 90426708196641 + round(t * 1e9) + (10_000_000_000 if i >= lines // 2 else 0)
                    made.append(f"{subject},{letter},{ns},{t:.4f},{subject},{2.5 if kind == 'gyro' else -1.5};\n")
            (folder / kind / f"data_{subject}_{kind}_watch.txt").write_text("".join(made))
    return root


def test_wisdm_as_published(tmp_path: Path) -> None:
    found = read_wisdm(wisdm(tmp_path), ["A", "P"])
    assert found.classes == ("walking", "dribbling") and found.subjects.tolist() == [1600, 1601]
    assert len(found) == 2 * 2 * 2  # a pause of 10 s cuts each in two
    first = found.recordings[0]
    assert first.values.shape == (49, 6) and set(first.labels.tolist()) == {0}
    np.testing.assert_allclose(first.values[:, 0], 0.01 + 0.05 * np.arange(49), atol=1e-3)  # the shared time
    np.testing.assert_allclose(first.values[:, 3], 0.01 + 0.05 * np.arange(49), atol=1e-3)
    np.testing.assert_allclose(first.values[:, [1, 2, 4, 5]], [[1600, -1.5, 1600, 2.5]] * 49)
    assert read_wisdm(tmp_path / "wisdm-dataset").classes[0] == "dribbling"


def test_wisdm_that_is_not_as_published(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="wisdm-dataset"):
        read_wisdm(tmp_path)
    wisdm(tmp_path / "a")
    with pytest.raises(ConfigError, match="no activity 'N'"):
        read_wisdm(tmp_path / "a", ["N"])
    with pytest.raises(ConfigError, match="watch or phone"):
        read_wisdm(tmp_path / "a", device="ring")
    with pytest.raises(DataError, match="nobody has both sensors for activities C"):
        read_wisdm(tmp_path / "a", ["C"])
    file = tmp_path / "a/wisdm-dataset/raw/watch/accel/data_1601_accel_watch.txt"
    file.write_text(file.read_text().replace("1601,P,90426758196641,", "1601,P,90426758196641;", 1))
    with pytest.raises(DataError, match=r"data_1601_accel_watch.txt: line 2 is"):
        read_wisdm(tmp_path / "a")
    file.write_text("1601,P,1,nan,0,0;\n1601,P,2,0,0,0;\n")
    with pytest.raises(SensorError, match="subject 1601, sample 0"):
        read_wisdm(tmp_path / "a")
    with pytest.raises(DataError, match=r"data_1600_gyro_watch.txt: no such file; accelerometer and gyroscope"):
        read_wisdm(wisdm(tmp_path / "b", gyro=False))


def uci(root: Path) -> Path:
    """Three windows for training, two for test, in UCI-HAR's layout."""
    home = root / "UCI HAR Dataset"
    for part, subjects, labels in (("train", [1, 1, 3], [5, 1, 6]), ("test", [2, 2], [1, 2])):
        signals = home / part / "Inertial Signals"
        signals.mkdir(parents=True)
        np.savetxt(home / part / f"subject_{part}.txt", subjects, fmt="%d")
        np.savetxt(home / part / f"y_{part}.txt", labels, fmt="%d")
        for k, name in enumerate(f"{a}_{b}" for a in ("total_acc", "body_gyro", "body_acc") for b in "xyz"):
            rows = 100 * k + np.arange(len(labels))[:, None] + np.linspace(0, 1, 128)
            np.savetxt(signals / f"{name}_{part}.txt", rows, fmt="% .7e")
    return root


def test_uci_har_as_published(tmp_path: Path) -> None:
    found = read_uci_har(uci(tmp_path))
    assert [r.subject for r in found.recordings] == [1, 1, 3, 2, 2]
    assert [int(r.labels[0]) for r in found.recordings] == [4, 0, 5, 0, 1]
    assert found.classes[4] == "STANDING" and found.recordings[0].values.shape == (128, 6)
    np.testing.assert_allclose(found.recordings[1].values[0], [1, 101, 201, 301, 401, 501])
    windows = cut_windows(found, 2000, 2000)
    assert windows.x.shape == (5, 40, 6)
    assert [r.name for r in read_uci_har(tmp_path / "UCI HAR Dataset", "test").recordings] == ["test_0", "test_1"]


def test_uci_har_that_is_not_as_published(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="UCI HAR Dataset"):
        read_uci_har(tmp_path)
    uci(tmp_path)
    with pytest.raises(ConfigError, match="no split 'valid'"):
        read_uci_har(tmp_path, "valid")
    home = tmp_path / "UCI HAR Dataset" / "train"
    (home / "y_train.txt").write_text("1\n2\n")
    with pytest.raises(DataError, match="do not fit together"):
        read_uci_har(tmp_path)
    (home / "y_train.txt").write_text("1\n2\n7\n")
    with pytest.raises(DataError, match="labels from 1 to 7"):
        read_uci_har(tmp_path)
    (home / "y_train.txt").write_text("1\n2\nwalking\n")
    with pytest.raises(DataError, match=r"y_train.txt: not a table of numbers"):
        read_uci_har(tmp_path)
    (home / "Inertial Signals" / "total_acc_z_train.txt").unlink()
    (home / "y_train.txt").write_text("1\n2\n3\n")
    with pytest.raises(DataError, match=r"total_acc_z_train.txt: no such file"):
        read_uci_har(tmp_path)


def test_sets_by_name(tmp_path: Path) -> None:
    assert len(read_sensors("uci_har", str(uci(tmp_path)))) == 5
    with pytest.raises(ConfigError, match="wisdm is not packaged"):
        read_sensors("wisdm")
    with pytest.raises(ConfigError, match="no sensor data 'pamap'"):
        read_sensors("pamap")
