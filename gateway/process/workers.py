"""Several processes behind one listening socket: started, started again when they die, drained together.

Each worker is a gateway of its own over a shared store. It must not know what they serve.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from prometheus_client.multiprocess import mark_process_dead

from gateway.logs import WORKER
from gateway.process.server import bind

log = structlog.get_logger()
SUPERVISOR = "ALERT_GATEWAY_SUPERVISOR"
"""The variable with the supervisor's process id: a worker cannot look it up if its supervisor is gone by then."""
BEATS = "ALERT_GATEWAY_BEATS"
"""The variable with the file descriptor to which a worker writes its signs of life."""
PATIENCE = 25.0
"""Seconds that workers have to drain before they are killed."""
BEAT = 1.0
"""Seconds between two signs of life of a worker."""
LOOK, MISSED = 5.0, 12
"""Seconds between two looks for signs of life, and the number of looks in a row without any after which a worker counts
as hanging. Looks are counted, as they stand still too while the machine sleeps."""
ENDED_WELL = (0, -signal.SIGTERM, -signal.SIGINT)
"""Exit statuses of a worker that ended because it was asked to, also before it could listen to that."""
AGAIN = 1.0
"""Seconds before a worker that died is started again."""
MEMORY = "/dev/shm"  # noqa: S108 - each directory has a unique name, and only its owner may use it
"""Where workers keep their metric files, if there is room: these are mapped into memory, and writing to a mapped file
on a full disk kills the process."""
ROOM = 16 << 20
"""Bytes that have to be free there."""
COUNTS = "alert-gateway-"
"""The prefix of directories for metric files."""
LEFT = 60.0
"""Seconds after which such a directory that is not locked counts as left by a supervisor that was killed."""


def supervise(
    arguments: Sequence[str], count: int, addresses: Mapping[str, tuple[str, int]], told: Mapping[str, str]
) -> int:
    """Runs `count` processes of `alert-gateway` with these arguments until SIGTERM or SIGINT; returns the exit status.
    Each gets the sockets that listen at `addresses`, by the option of that name, and the variables in `told`."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(_metrics_directory())
        command = [sys.executable, *_safely(), "-m", "gateway.cli", *arguments]
        inherited: list[socket.socket] = []
        for option, (host, port) in addresses.items():
            listener = stack.enter_context(bind(host, port))
            listener.set_inheritable(True)
            listener.listen(2048)
            inherited.append(listener)
            command += [option, str(listener.fileno())]
        environment = {**os.environ, **told, "PROMETHEUS_MULTIPROC_DIR": directory, SUPERVISOR: str(os.getpid())}
        return asyncio.run(_Supervisor(command, environment, inherited, directory).run(count))


@contextlib.contextmanager
def _metrics_directory() -> Iterator[str]:
    """The directory for the workers' metric files. It is locked, so that systemd-tmpfiles leaves it alone however old
    it is, and later supervisors see that it is in use."""
    place = MEMORY if _has_room(MEMORY) else tempfile.gettempdir()
    _clear_left(place)
    with tempfile.TemporaryDirectory(prefix=COUNTS, dir=place, ignore_cleanup_errors=True) as directory:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            yield directory
        finally:
            os.close(fd)


def _has_room(place: str) -> bool:
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return os.access(place, os.W_OK | os.X_OK) and found.f_bavail * found.f_frsize >= ROOM


def _clear_left(place: str) -> None:
    """Removes what killed supervisors have left: it takes memory, and outlives a container in its pod."""
    for one in Path(place).glob(COUNTS + "*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            found = one.lstat()
            if found.st_uid == os.getuid() and time.time() - found.st_mtime > LEFT and not _is_locked(one):
                shutil.rmtree(one, ignore_errors=True)


def _is_locked(directory: Path) -> bool:
    """Whether a directory is locked. Raises `OSError` where that cannot be found out, or it is no directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _safely() -> list[str]:
    """The option that keeps workers from importing modules from the working directory, unless this process does."""
    try:
        is_from_here = sys.path[0] in ("", os.getcwd())
    except OSError:  # it was removed
        is_from_here = False
    return [] if is_from_here else ["-P"]


class _Supervisor:
    def __init__(
        self, command: Sequence[str], environment: dict[str, str], inherited: Sequence[socket.socket], metrics: str
    ) -> None:
        self._command = command
        self._environment = environment
        self._inherited = inherited
        self._metrics = metrics
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stop = asyncio.Event()

    async def run(self, count: int) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._tell, signal.SIGHUP)
        hear_signals()
        tasks = [asyncio.create_task(self._keep(number)) for number in range(1, count + 1)]
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self._stop.set()
        for listener in self._inherited:  # or connections would queue here, unanswered, when no worker listens any more
            listener.close()
        self._tell(signal.SIGTERM)
        _, late = await asyncio.wait(tasks, timeout=PATIENCE)
        self._tell(signal.SIGKILL)
        if late:
            await asyncio.wait(late)
        return max((task.result() for task in tasks), default=0)

    def _tell(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, worker: int) -> int:
        """Keeps one worker running; returns its exit status. One that fails at its first start is not started again."""
        first = True
        while not self._stop.is_set():
            try:
                process, beats = await self._started(worker)
            except OSError as error:  # too many processes, or too little memory: the others serve on
                log.error("worker.not_started", worker=worker, reason=str(error))
                await self._pause()
                continue
            self._running[worker] = process
            watching = asyncio.create_task(self._watch(worker, process, beats))
            if self._stop.is_set():  # the signal was sent to the others while this one was being started
                process.terminate()
            status = await process.wait()
            watching.cancel()
            os.close(beats)
            del self._running[worker]
            mark_process_dead(worker, self._metrics)  # type: ignore[no-untyped-call]
            if self._stop.is_set() or (first and status == 1):
                return status if status > 0 else int(status not in ENDED_WELL)
            first = False
            log.error("worker.died", worker=worker, status=status)
            await self._pause()
        return 0

    async def _watch(self, worker: int, process: asyncio.subprocess.Process, beats: int) -> None:
        """Kills a worker that hangs, so that it is started again: its callers wait for answers that never come. One
        that has given no sign of life yet is still starting, which may take as long as opening the store does; one that
        drains goes on giving them, and is left to `PATIENCE`."""
        has_begun, missed = False, 0
        while not self._stop.is_set():
            await asyncio.sleep(LOOK)
            is_alive = _has_beaten(beats)
            has_begun |= is_alive
            missed = missed + 1 if has_begun and not is_alive else 0
            if missed >= MISSED and not self._stop.is_set():
                log.error("worker.hangs", worker=worker, seconds=LOOK * MISSED)
                process.kill()
                return

    async def _started(self, worker: int) -> tuple[asyncio.subprocess.Process, int]:
        """Starts a worker; returns its process, and the file descriptor from which its signs of life are read. The
        directory for metrics is made again where a clean-up has removed it, as no worker starts without it."""
        os.makedirs(self._metrics, mode=0o700, exist_ok=True)
        beats, into = os.pipe()
        os.set_blocking(beats, False)
        fds = [*(listener.fileno() for listener in self._inherited), into]
        environment = {**self._environment, WORKER: str(worker), BEATS: str(into)}
        try:
            with _reloads_held():
                return await asyncio.create_subprocess_exec(*self._command, env=environment, pass_fds=fds), beats
        except BaseException:
            os.close(beats)
            raise
        finally:
            os.close(into)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), AGAIN)


def _has_beaten(beats: int) -> bool:
    try:
        return bool(os.read(beats, 65_536))
    except BlockingIOError:
        return False


async def beat() -> None:
    """Writes signs of life to the supervisor, where there is one, for as long as the event loop runs."""
    if BEATS not in os.environ:
        return
    into = int(os.environ[BEATS])
    os.set_blocking(into, False)
    while True:
        with contextlib.suppress(OSError):  # nobody reads any more, or the pipe is full
            os.write(into, b".")
        await asyncio.sleep(BEAT)


@contextlib.contextmanager
def _reloads_held() -> Iterator[None]:
    """Blocks SIGHUP in processes started within, until they handle it: it would kill one that is still importing."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        hear_signals()


def hear_signals() -> None:
    """Unblocks SIGHUP and SIGTERM in this thread; one that is pending arrives at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGTERM})
