"""Ray's own parts and what becomes of the command when they die: a line and an end, and nothing is left behind."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from command_fixture import folder, start, told, wait_while
from patience import HANG, until

from study.executors import guard, reaper
from study.executors.address import check_reachable
from study.executors.guard import MARK, Guard, reaping

__all__ = ["folder"]


def framed(kind, flags, content=b""):
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + bytes(4) + content


@pytest.fixture
def speaks():
    """A server that answers HTTP/2 with these frames, once it has heard the call; its address."""
    servers = []

    def serve(*frames):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def answer():
            there, _ = server.accept()
            with there:
                there.sendall(framed(4, 0))
                heard = b""
                while b"CheckAlive" not in heard and (more := there.recv(4096)):
                    heard += more
                for frame in frames:
                    there.sendall(frame)
                    time.sleep(0.05)

        threading.Thread(target=answer, daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


def test_the_port_of_ray_s_client_is_told_at_once(speaks):
    """gRPC answers there too, but does not know the call: trailers with status 12, unimplemented."""
    address = speaks(framed(4, 1), framed(1, 5, b"\x88\x40\x0bgrpc-status\x0212"))
    with pytest.raises(ValueError, match=r"where something else listens .* 10001 that of its client") as error:
        check_reachable(address)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "frames",
    [
        (framed(4, 1), framed(1, 4, b"\x88"), framed(0, 0, bytes(5)), framed(1, 5, b"\x40\x0bgrpc-status\x010")),
        (framed(1, 5, b"\x88\x40\x0bgrpc-status\x0216"),),
    ],
    ids=["answers", "wants a token"],
)
def test_a_cluster_is_reachable(speaks, frames):
    check_reachable(speaks(*frames))


CHILD = "import subprocess, sys, time; subprocess.Popen(['sleep', '1000']); time.sleep(1000)"
DRIVER = f"""\
import subprocess, sys, time
from pathlib import Path
from study.executors.guard import reaping
with reaping(Path(sys.argv[1])):
    subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True)
    time.sleep(float(sys.argv[2]))
"""


def test_what_a_killed_driver_had_started_ends_within_seconds(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(place), "1000"])
    mark = f"{MARK}={place}"
    until(lambda: len(reaper.marked(mark)) == 2, lambda: "never started")
    other = subprocess.Popen(["sleep", "1000"])
    driver.kill()
    driver.wait(HANG)
    until(lambda: not reaper.marked(mark) and not place.exists(), lambda: f"left: {reaper.marked(mark)}")
    assert other.poll() is None
    other.kill()
    other.wait(HANG)


def test_a_driver_that_ends_by_itself_leaves_its_processes_to_ray(tmp_path):
    with reaping(tmp_path):
        process = subprocess.Popen(["sleep", "1000"])
    assert process.poll() is None and tmp_path.exists()
    process.kill()
    process.wait(HANG)


def test_a_part_that_dies_ends_the_command_with_a_line(tmp_path, monkeypatch):
    ended, lines = [], []
    monkeypatch.setattr(guard.os, "_exit", ended.append)
    monkeypatch.setattr(guard, "SECONDS_BETWEEN_LOOKS", 0.01)
    alive = [True]
    with Guard({"Ray's raylet": lambda: alive[0]}, tmp_path, lines.append) as one:
        one.started()
        time.sleep(0.1)
        assert ended == []
        alive[0] = False
        until(lambda: bool(ended), lambda: "no end")
    assert ended[0] == 1 and lines[0].startswith("error: Ray's raylet must live as long as the study, and has died")


def test_workers_that_do_not_start_are_told_once(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(guard, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(guard, "SECONDS_TO_START", 0.05)
    with Guard({}, tmp_path, lines.append):
        until(lambda: bool(lines), lambda: "no line")
        time.sleep(0.1)
    assert len(lines) == 1 and "--executor inline" in lines[0]
    with Guard({}, tmp_path, lines.append) as one:
        one.started()
        time.sleep(0.2)
    assert len(lines) == 1


def parts_of(pid):
    """Processes of Ray that a command started: their number by the name of their program."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{pid}\n" in (entry / "status").read_text():
                name = Path((entry / "cmdline").read_bytes().split(b"\0")[0].decode()).name
                found[name] = int(entry.name)
        except OSError:
            continue
    return found


def of_folder(temporary):
    return {mark for mark in temporary if reaper.marked(mark)}


def marks():
    """The marks of all processes of Ray's that any driver here has started."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            pairs = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {pair.decode() for pair in pairs if pair.startswith(f"{MARK}=".encode())}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("part", ["raylet", "gcs_server", None])
def test_killed_parts_end_the_command_within_thirty_seconds_and_leave_nothing(folder, part):
    before = marks()
    arguments = ("--executor", "ray", "--workers", "1", "--set", "recipe.epochs=5000", "--checkpoint-every", "1")
    process = start(folder, *arguments)
    kept = folder / "mlruns" / "ledger" / "checkpoints"
    wait_while(process, folder, lambda: kept.exists() and any(kept.glob("*.pt")))
    own = marks() - before
    assert len(own) == 1
    if part is None:
        process.kill()
    else:
        subprocess.run(["kill", "-9", str(parts_of(process.pid)[part])], check=True)
    begun = time.monotonic()
    process.wait(HANG)
    assert time.monotonic() - begun < 30
    ended = time.monotonic()
    until(lambda: not of_folder(own), lambda: "something is left")
    assert time.monotonic() - ended < 10
    lines = told(folder).splitlines()
    assert "Traceback" not in told(folder)
    if part is not None:
        assert process.returncode == 1
        assert sum("must live as long as the study, and has died" in line for line in lines) == 1
