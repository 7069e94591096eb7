#!/usr/bin/env python3
"""Measures restarts beside those of Server::Starter: `restarts.py BIN`.

BIN holds dc_master and examples/good_child (target/release). The same child runs under dc_master, with and without
READY=1, and under start_server (Debian: libserver-starter-perl), each in turn: 20 restarts while four callers connect, ask and
close. Prints the calls and those that failed, how long a call took, from SIGHUP to the new child's first answer, the
supervisor's processor time for each restart, and its memory. Supervisor and child run on core 0, the callers on core 1.
"""
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

BIN = os.path.abspath(sys.argv[1])
CHILD = BIN + "/examples/good_child"
RESTARTS = 20
CALLERS = 4
# Where the descriptor is, as systemd would say it.
SHELL = 'fd=${SERVER_STARTER_PORT##*=}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" 3<&$fd'
# The pause of a supervisor that has no other way to know that a child is ready: the shortest of start_server, in seconds.
PAUSE = 1


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def supervisors():
    """A name, the time until the next SIGHUP, and the command."""
    master = [BIN + "/dc_master", "-log", "warn", "-listen", "tcp://127.0.0.1:{port}", "-command"]
    yield "dc_master, READY=1", 0.2, master + [CHILD, "-start", "0"]
    yield f"dc_master, -start {PAUSE}s", 2.5 * PAUSE, master + [
        "env", "-start", f"{PAUSE}s", "--", "-u", "NOTIFY_SOCKET", CHILD]
    yield f"start_server, --interval {PAUSE}", 2.5 * PAUSE, [
        "start_server", "--port=127.0.0.1:{port}", f"--interval={PAUSE}", "--signal-on-hup=HUP", "--",
        "sh", "-c", SHELL, CHILD]


def call(port):
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := s.recv(4096):
            answer += piece
    child = re.search(rb"process (\d+)", answer)
    if not child:
        raise OSError("no answer")
    return int(child[1]), time.perf_counter() - began


def usage(pid):
    """Processor time in ms, without that of children that were waited for, and memory in KiB."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    rss = next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))
    return ticks * 1000 / os.sysconf("SC_CLK_TCK"), int(rss.split()[1])


def measure(name, pause, command):
    port = free_port()
    command = [word.format(port=port) if "{port}" in word else word for word in command]
    supervisor = subprocess.Popen(["taskset", "-c", "0"] + command, stderr=subprocess.DEVNULL)
    seen, times, failures, changed = set(), [], [], threading.Condition()
    over = threading.Event()

    def caller():
        while not over.is_set():
            try:
                child, took = call(port)
                with changed:
                    times.append(took)
                    if child not in seen:
                        seen.add(child)
                        changed.notify_all()
            except OSError as error:
                with changed:
                    failures.append(error)

    while True:
        try:
            call(port)
            break
        except OSError:
            if supervisor.poll() is not None:
                raise SystemExit(f"{name}: it does not start")
            time.sleep(0.02)
    os.sched_setaffinity(0, {1})
    callers = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in callers:
        thread.start()
    with changed:
        changed.wait_for(lambda: seen)
    before, _ = usage(supervisor.pid)
    restarts = []
    for _ in range(RESTARTS):
        with changed:
            known = len(seen)
            began = time.perf_counter()
            supervisor.send_signal(signal.SIGHUP)
            if not changed.wait_for(lambda: len(seen) > known, timeout=20):
                raise SystemExit(f"{name}: no new child")
        restarts.append(time.perf_counter() - began)
        # A supervisor may take no second SIGHUP before it has seen off the old child.
        time.sleep(pause)
    after, memory = usage(supervisor.pid)
    over.set()
    for thread in callers:
        thread.join()
    supervisor.terminate()
    supervisor.wait()
    times.sort()
    at = lambda part: times[min(len(times) - 1, int(len(times) * part))] * 1e3
    print(
        f"{name:28} {len(times):7} calls {len(failures):3} failed  p50 {at(0.5):.2f} p99.9 {at(0.999):.2f} "
        f"max {times[-1] * 1e3:.1f} ms  SIGHUP to answer {statistics.median(restarts) * 1e3:.1f} ms  "
        f"{(after - before) / RESTARTS:.1f} ms cpu a restart  {memory} KiB",
        flush=True,
    )


for name, pause, command in supervisors():
    measure(name, pause, command)
