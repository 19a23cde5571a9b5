import io
import subprocess
import sys
import time

import pytest

from theoryrl.lab import progress

module = sys.modules["theoryrl.lab.progress"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_the_package_exports_the_function():
    assert callable(progress)
    assert sys.modules["theoryrl.lab"].progress is progress


def test_short_work_writes_nothing_into_a_log():
    stream = io.StringIO()
    with progress(3, "work", stream) as tick:
        for done in (1, 2, 3):
            tick(done)
    assert stream.getvalue() == ""


def test_long_work_shows_life_in_a_log(monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    stream = io.StringIO()
    with progress(4, "work", stream) as tick:
        tick(1, "other work")
        until = time.monotonic() + 20
        while stream.getvalue().count("\n") < 3 and time.monotonic() < until:
            time.sleep(0.01)
    lines = stream.getvalue().splitlines()
    assert len(lines) >= 3
    assert lines[-1] == "other work: 1/4"
    time.sleep(0.05)
    assert stream.getvalue().splitlines() == lines  # and none after the end


def test_time_left_is_from_the_speed_of_this_run(clock):
    tick = module.Ticker(100, "work")
    assert tick.left() is None
    tick(40)  # resumed: forty were there
    assert tick.left() is None
    clock[0] += 30.0
    tick(50)
    assert tick.left() == pytest.approx(150.0)
    assert tick.line() == "work: 50/100, about 2 min left"
    clock[0] += 30.0  # nothing moves: the estimate grows
    assert tick.left() == pytest.approx(300.0)
    tick(100)
    assert tick.line() == "work: 100/100"
    tick(45)  # another piece of work
    assert tick.left() is None


def test_the_callback_brings_its_total():
    tick = module.Ticker(None, "")
    assert tick.line() == "0"
    tick.callback(2, 5, "verify")
    assert tick.line() == "verify: 2/5"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h 0 min"), (7800, "2 h 10 min")]
)
def test_durations(seconds, text):
    assert module.duration(seconds) == text


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    with progress(text="[work]", stream=stream) as tick:
        tick.callback(1, 4, "[work]")
        tick.callback(2, 4, "[work]")
    shown = stream.getvalue()
    assert "[work]" in shown
    assert "2/4" in shown
    assert "left" in shown


def test_the_room_is_light():
    heavy = ("pandas", "rich", "numba", "matplotlib")
    code = f"import sys, theoryrl.lab as lab; lab.sweep, lab.progress; print(*[m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
