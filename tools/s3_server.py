#!/usr/bin/env python3
"""An S3 server on loopback for tests and demos: Ceph's radosgw where it is installed, else moto.

    tools/s3_server.py install            Debian's packages of Ceph (as root)
    tools/s3_server.py start [DIR]        starts a server with all its state under DIR; prints shell exports
    tools/s3_server.py stop [DIR]         ends what start began, and nothing else

    eval "$(tools/s3_server.py start)"    and every tool that speaks S3 finds it

radosgw is the gateway that production clusters run: it honours conditional PUTs and byte ranges and
multipart uploads as AWS does. It needs a monitor and one object store daemon; the three take about
16 s to start and 200 MB of memory. moto is a mock: quicker to start, slower to serve. Standard
library only, so that it runs before anything is installed. DIR is .s3 of the
repository unless given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

PACKAGES = ("ceph-mon", "ceph-osd", "radosgw", "ceph-common")
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "monmaptool", "radosgw-admin")
DEFAULT_DIR = Path(__file__).resolve().parents[1] / ".s3"
STATE = "s3_server.json"  # marks a folder as ours, and says which processes are
ACCESS_KEY, SECRET_KEY = "shardstream", "loopback-only"
START_S = 120
STOP_S = 10

CEPH_CONF = """\
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{mon_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# One copy of everything, a handful of placement groups, no balancing: this cluster is one process deep.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
# Test machines run with full disks; only a really full one stops writes.
mon_data_avail_warn = 2
mon_data_avail_crit = 1
# radosgw keeps bucket indexes by classes that run in the osd.
osd_class_load_list = *
osd_class_default_list = *
run_dir = {dir}/run
log_file = {dir}/log/$name.log
admin_socket = {dir}/run/$name.asok
pid_file =
ms_bind_ipv6 = false
ms_bind_port_min = {osd_port}
ms_bind_port_max = {osd_port_max}
[mon]
mon_data = {dir}/mon
[osd]
osd_data = {dir}/osd
osd_objectstore = bluestore
bluestore_block_size = 8589934592
osd_memory_target = 939524096
[client.rgw]
rgw_data = {dir}/rgw
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_run_sync_thread = false
"""


class Failed(Exception):
    """The server could not be started; the text says why."""


def install() -> None:
    """Install Ceph's packages with apt-get, unless they are there."""
    if ceph_is_installed():
        return
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(command, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def ceph_is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


def running(folder: Path) -> dict[str, str] | None:
    """Return the environment of the server that start() began in ``folder``, None if it is not running."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return None
    alive = state.get("environment") and all(is_ours(process) for process in state["processes"])
    return state["environment"] if alive else None


def start(folder: Path, server: str = "auto") -> dict[str, str]:
    """Start a server with its state under ``folder``; returns the environment that its clients need.

    A server already running there is kept. Raises :class:`Failed`.
    """
    if (environment := running(folder)) is not None:
        return environment
    if folder.exists() and any(folder.iterdir()) and not (folder / STATE).exists():
        raise Failed(f"{folder} holds other things; give an empty folder")
    stop(folder)
    folder.mkdir(parents=True, exist_ok=True)
    starter = start_ceph if server == "ceph" or (server == "auto" and ceph_is_installed()) else start_moto
    try:
        environment = starter(folder)
    except BaseException:
        stop(folder)
        raise
    save(folder, environment=environment)
    return environment


def stop(folder: Path) -> None:
    """End the processes that start() began in ``folder``, the last one first, and remove their state."""
    try:
        state = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        return
    for process in reversed(state["processes"]):
        if is_ours(process):
            os.kill(process["pid"], signal.SIGTERM)
            wait_until(lambda process=process: not is_ours(process), STOP_S)
        if is_ours(process):
            os.kill(process["pid"], signal.SIGKILL)
    shutil.rmtree(folder)


# -- processes -----------------------------------------------------------------------------------


def bring_up(folder: Path, name: str, command: list[str], is_up, environment: dict[str, str] | None = None) -> None:
    """Start a daemon and wait until ``is_up()``; one that ends early is started again, twice at most.

    On a busy machine Ceph's object store daemon may ask the monitor before it has heard who that is,
    and ends with "wrong fsid".
    """
    for _ in range(3):
        process = spawn(folder, name, command, environment)
        wait_until(lambda process=process: process.poll() is not None or is_up(), START_S)
        if process.poll() is None:
            break
    if process.poll() is not None or not is_up():
        raise Failed(f"{name} did not come up in {START_S} s:\n{last_lines(folder)}")


def spawn(folder: Path, name: str, command: list[str], environment: dict[str, str] | None) -> subprocess.Popen:
    """Start a daemon in a session of its own, its output in ``log/<name>.out``, and note that it is ours."""
    (folder / "log").mkdir(exist_ok=True)
    with open(folder / "log" / f"{name}.out", "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   start_new_session=True, env={**os.environ, **(environment or {})})  # fmt: skip
    processes = json.loads((folder / STATE).read_text())["processes"]
    save(folder, processes=[*processes, {"pid": process.pid, "started": started(process.pid)}])
    return process


def save(folder: Path, **changes) -> None:
    path = folder / STATE
    state = json.loads(path.read_text()) if path.exists() else {"processes": [], "environment": None}
    path.write_text(json.dumps({**state, **changes}, indent=1) + "\n")


def started(pid: int) -> str | None:
    """Return when a living process began, in clock ticks since boot: with its pid, its identity. None if it ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def is_ours(process: dict) -> bool:
    return process["started"] is not None and started(process["pid"]) == process["started"]


def wait_until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
        return True
    except urllib.error.HTTPError:
        return True  # an S3 error is an answer
    except OSError:
        return False


def last_lines(folder: Path) -> str:
    logs = sorted((folder / "log").glob("*"))
    return "\n".join(f"{log.name}: {line}" for log in logs for line in log.read_text(errors="replace").splitlines()[-3:])


def exports(port: int, server: str) -> dict[str, str]:
    return {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1",
            "SHARDSTREAM_S3_SERVER": server}  # fmt: skip


# -- the two servers -----------------------------------------------------------------------------


def start_moto(folder: Path) -> dict[str, str]:
    """Start moto's server, which must be installed for this interpreter."""
    (port,) = free_ports(1)
    save(folder)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    bring_up(folder, "moto", command, lambda: answers(f"http://127.0.0.1:{port}/"))
    return exports(port, "moto")


def start_ceph(folder: Path) -> dict[str, str]:
    """Start a monitor, an object store daemon and the gateway, each once the one before is up."""
    port, mon_port, osd_port = free_ports(3)
    fsid, osd_id = str(uuid.uuid4()), str(uuid.uuid4())
    save(folder)
    for name in ("mon", "osd", "rgw", "run", "log"):
        (folder / name).mkdir(exist_ok=True)
    conf = CEPH_CONF.format(fsid=fsid, dir=folder.resolve(), port=port, mon_port=mon_port, osd_port=osd_port,
                            osd_port_max=min(osd_port + 100, 65535))  # fmt: skip
    (folder / "ceph.conf").write_text(conf)
    environment = {"CEPH_CONF": str(folder.resolve() / "ceph.conf")}

    def ceph(*command: str, check: bool = True) -> str:
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True,
                              timeout=START_S)  # fmt: skip
        if check and done.returncode:
            raise Failed(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    monmap = str(folder / "monmap")
    ceph("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", f"[v1:127.0.0.1:{mon_port}]", monmap)
    ceph("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap)
    bring_up(folder, "mon", ["ceph-mon", "-i", "a", "-f"],
             lambda: "quorum" in ceph("ceph", "--connect-timeout", "5", "-s", check=False), environment)  # fmt: skip
    ceph("ceph", "osd", "new", osd_id)
    ceph("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id)
    bring_up(folder, "osd", ["ceph-osd", "-i", "0", "-f"],
             lambda: "1 up" in ceph("ceph", "osd", "stat", check=False), environment)  # fmt: skip
    bring_up(folder, "rgw", ["radosgw", "-n", "client.rgw", "-f"],
             lambda: answers(f"http://127.0.0.1:{port}/"), environment)  # fmt: skip
    ceph("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=shardstream", "--display-name=shardstream",
         f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}")  # fmt: skip
    version = ceph("radosgw", "--version").split()[2]
    return exports(port, f"Ceph radosgw {version}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("install", "start", "stop"))
    parser.add_argument("dir", type=Path, nargs="?", default=DEFAULT_DIR)
    parser.add_argument("--server", choices=("auto", "ceph", "moto"), default="auto")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "install":
            install()
        elif arguments.verb == "stop":
            stop(arguments.dir)
        else:
            for name, value in start(arguments.dir, arguments.server).items():
                print(f"export {name}='{value}'")
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"s3_server.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
