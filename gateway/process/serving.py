"""`serve`: a gateway as a process. Signals are handled here: on SIGTERM the gateway is no longer ready, serves on for a
while so that load balancers notice, then drains and exits. It must not know any vendor."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import structlog

from gateway import log_writer, spans
from gateway.admin.operations import SIGNAL, Operator, keep_reload
from gateway.config.config import Config
from gateway.config.values import is_loopback
from gateway.errors import ConfigurationError, StoreError
from gateway.inbound.protocol import OperatorsProtocol
from gateway.logs import WORKER
from gateway.network.certificates import Following, not_after
from gateway.network.listening import Tls
from gateway.process.aside import aside
from gateway.process.lean import settled
from gateway.process.server import bind, serving
from gateway.process.service import Gateway, fixed, takes_restart
from gateway.process.workers import SUPERVISOR, beat, hear_signals

log = structlog.get_logger()
LOOK_EVERY = 1.0
"""Seconds between two looks at the certificate files."""
LOADING = 60.0
"""Seconds that reading a configuration may take."""
SETTLE = 0.3
"""Seconds after listening has ended in which requests that were sent before are still answered."""
LINGER = 3.0
"""Seconds between the end of readiness and the end of listening."""
ENDS = frozenset((signal.SIGTERM, signal.SIGINT))
"""Signals that ask the process to end."""
BEGUN = "ALERT_GATEWAY_BEGUN"
"""The variable that gives a worker digests of the settings that its supervisor started with and that take a restart."""
Door = tuple[socket.socket | None, Following | None]
"""A socket that is bound already, and the TLS context where there is one."""
TICK = 0.005
"""Seconds for which signals are waited for between two looks whether the store is open."""
PATIENCE, OPERATORS_PATIENCE = 6, 1
"""Seconds that the shutdown waits for slow callers, and then for slow operators: together with the rest of the drain
less than the 25 s after which a process is killed."""
VERDICTS = SETTLE + PATIENCE - 1
"""Seconds after listening has ended until callers that still wait for verdicts are answered without: `reply_timeout`
may be longer than the shutdown waits, and by default is not."""


def run(config: Config, load: Callable[[], Config], fd: int | None = None, admin_fd: int | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status. `load` reads the configuration again, at each SIGHUP;
    `fd` and `admin_fd` are listening sockets that a supervisor passed on."""
    _allow_many_connections()
    if problem := _differs_from_supervisors(config):
        log.critical("config.refused", problem=problem)
        return 1
    spans.start()
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, load, fd, admin_fd))
    except StoreError as error:
        log.critical("store.unusable", reason=str(error))
        return 1
    except ConfigurationError as error:  # a certificate was replaced since the configuration was read
        log.critical("config.refused", problem="; ".join(error.problems))
        return 1
    finally:
        spans.stop()


def _allow_many_connections() -> None:
    """Raises the limit of open files to the most allowed: on many systems a process starts with 1,024, and where these
    are used up, callers' connections are reset and nothing can be sent."""
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it, and not every system's `most` can be set
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def begun(config: Config) -> dict[str, str]:
    """The environment by which workers know the configuration that their supervisor started with."""
    return {BEGUN: json.dumps(_digests(config))}


def _digests(config: Config) -> dict[str, str]:
    return {name: hashlib.sha256(repr(value).encode()).hexdigest() for name, value in fixed(config).items()}


def _differs_from_supervisors(config: Config) -> str:
    """Why a worker cannot serve, or an empty text. A worker that is started again reads the file as it is by then: if
    that names another store, it would take alerts in beside workers that go on with the old one, and none would end
    them."""
    if BEGUN not in os.environ:
        return ""
    before = json.loads(os.environ[BEGUN])
    others = [name for name, digest in _digests(config).items() if digest != before[name]]
    return "; ".join(takes_restart(others).problems)


async def _serve(config: Config, load: Callable[[], Config], fd: int | None, admin_fd: int | None) -> int:
    gateway = Gateway(config)
    stop, reload = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in ENDS:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    reloading = _Reloading(gateway, load, is_one_of_many=fd is not None)
    gateway.reload_from_file = reloading.for_all
    tls, admin_tls = _contexts(config)
    if config.tls:
        _show_end(gateway, config.tls)
    beating = asyncio.create_task(beat()) if fd is not None else None  # not in `watching`: it goes on while draining
    async with contextlib.AsyncExitStack() as stack:
        try:  # before the store is opened: a process that cannot serve must not deliver anything
            listener = stack.enter_context(_socket(config.listen, fd))
            admin_listener = stack.enter_context(_socket(config.admin, admin_fd)) if config.admin else None
        except OSError as error:
            return _cannot_listen(config, error)
        await stack.enter_async_context(gateway.running(_ending_at_once()))
        hear_signals()
        watching = [asyncio.create_task(reloading.when_asked(reload))]
        watching += [asyncio.create_task(_follow(gateway, config.tls, [one for one in (tls, admin_tls) if one]))]
        if fd is not None:
            watching.append(asyncio.create_task(_orphaned(stop)))
        try:
            await _serve_until(stop, gateway, config, (listener, tls), (admin_listener, admin_tls))
        except OSError as error:  # another process began to listen there while the store was opened
            return _cannot_listen(config, error)
        finally:
            for task in watching:
                task.cancel()
    if beating:
        beating.cancel()
    log.info("stopped")
    return 0


async def _serve_until(stop: asyncio.Event, gateway: Gateway, config: Config, callers: Door, operators: Door) -> None:
    """Serves callers and operators until `stop`, and then for `LINGER` seconds, in which load balancers notice."""
    async with contextlib.AsyncExitStack() as listeners:
        if config.admin:
            listener, tls = operators
            admin = serving(
                gateway.admin_app,
                *config.admin,
                http=OperatorsProtocol,
                listener=listener,
                tls=tls,
                patience=OPERATORS_PATIENCE,
            )
            log.info("serving.admin", url=await listeners.enter_async_context(admin))
        listener, tls = callers
        url = await listeners.enter_async_context(
            serving(gateway.app, *config.listen, listener=listener, tls=tls, settle=SETTLE, patience=PATIENCE)
        )
        settled()
        log.info("serving", url=url, dialects=list(config.inbounds), upstreams=list(config.upstreams))
        await stop.wait()
        gateway.is_draining = True
        log.info("draining", seconds=LINGER)
        await asyncio.sleep(LINGER)
        asyncio.get_running_loop().call_later(VERDICTS, gateway.waiters.dismiss)


def _contexts(config: Config) -> tuple[Following | None, Following | None]:
    """The TLS contexts for callers and for operators. Raises `ConfigurationError` where the certificate, its key or the
    authorities are bad."""
    try:
        tls = config.tls.context() if config.tls else None
        return tls, config.tls.context(asks=False) if config.tls and _is_remote(config) else None
    except ValueError as error:
        raise ConfigurationError([f"tls: {error}"]) from None


def _socket(address: tuple[str, int], fd: int | None) -> socket.socket:
    """The socket for an address, bound but not listening yet; or the one that a supervisor passed on."""
    return bind(*address) if fd is None else socket.socket(fileno=fd)


def _cannot_listen(config: Config, error: OSError) -> int:
    log.critical("listen.failed", listen=config.listen, admin=config.admin, reason=str(error))
    return 1


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    """Ends the process at once if it is asked to while the store is opened, which may take as long as an upgrade or
    another process's lock on it. Nothing is under way, and the store rolls back what it was doing. A thread waits for
    the signals, as the event loop may be blocked meanwhile."""
    is_open = threading.Event()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)

    def listen() -> None:
        while not is_open.is_set():
            if signal.sigtimedwait(ENDS, TICK):
                log.info("stopped", reason="asked to stop before the store was open")
                log_writer.finish()
                os._exit(0)

    listening = threading.Thread(target=listen, name="ending", daemon=True)
    listening.start()
    try:
        yield
    finally:
        is_open.set()
        listening.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)


def _is_remote(config: Config) -> bool:
    """Whether operators connect from other machines: on loopback TLS would protect nothing."""
    return config.admin is not None and not is_loopback(config.admin[0])


def _show_end(gateway: Gateway, tls: Tls) -> None:
    gateway.metrics.certificate_ends(tls.pair.cert, not_after(tls.pair.cert))


async def _follow(gateway: Gateway, tls: Tls | None, shown: list[Following]) -> None:
    """Loads certificates that were replaced; bad ones change nothing, and are logged."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        found = [(one, await aside(one.look)) for one in shown]
        changed = [(one, what) for one, what in found if what != "same"]
        if not changed:
            continue
        bad = [one.fault for one, what in changed if what == "bad"]
        gateway.metrics.certificate(is_good=not bad)
        if bad:
            log.error("certificate.refused", reason=bad[0])
        elif tls:
            _show_end(gateway, tls)
            log.info("certificate.reloaded")


def _supervisor() -> int:
    """The id of the process that started this worker, also after the end of that process."""
    return int(os.environ.get(SUPERVISOR, os.getppid()))


async def _orphaned(stop: asyncio.Event) -> None:
    """Ends a worker whose supervisor is gone: nobody else would."""
    supervisor = _supervisor()
    while os.getppid() == supervisor:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(1.0)
    log.error("supervisor.gone")
    stop.set()


class _Reloading:
    """Loads the configuration again when asked to; a bad one changes nothing, and is logged. Of several workers that
    reload together, the first counts it."""

    def __init__(self, gateway: Gateway, load: Callable[[], Config], *, is_one_of_many: bool) -> None:
        self._gateway = gateway
        self._load = load
        self._is_one_of_many = is_one_of_many
        self._is_first = os.environ.get(WORKER, "1") == "1"
        self._one_at_a_time = asyncio.Lock()
        self._is_echo = False

    async def when_asked(self, asked: asyncio.Event) -> None:
        """Reloads whenever a signal has set `asked`."""
        while True:
            await asked.wait()
            asked.clear()
            is_echo, self._is_echo = self._is_echo, False
            with contextlib.suppress(ConfigurationError, StoreError):
                await self._here(SIGNAL, is_counted=self._is_first and not is_echo)

    async def for_all(self, operator: Operator) -> None:
        """Reloads this process, and has the supervisor signal all workers. The signal comes back to this one too, and
        must not be counted again (`_is_echo`). Raises `ConfigurationError` or `StoreError`."""
        is_ours = os.environ.get(SUPERVISOR) == str(os.getppid())  # compared, as it may rightly be 1 in a container
        is_told_on = self._is_one_of_many and is_ours
        await self._here(operator, is_counted=self._is_first or not is_told_on)
        if is_told_on:
            self._is_echo = True
            os.kill(os.getppid(), signal.SIGHUP)

    async def _loaded(self) -> Config:
        """The new configuration. Raises `ConfigurationError`, also where a file takes too long: nobody could say
        whether it was loaded, and none could be loaded any more."""
        try:
            async with asyncio.timeout(LOADING):
                return await aside(self._load)
        except TimeoutError:
            say = f"it could not be read within {LOADING:.0f} seconds: is it, or a file that it names, on a share?"
            raise ConfigurationError([say]) from None

    async def _here(self, operator: Operator, *, is_counted: bool) -> None:
        gateway = self._gateway
        async with self._one_at_a_time:
            try:
                await gateway.reload(await self._loaded())
            except ConfigurationError as error:
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                for problem in error.problems:
                    log.error("config.refused", problem=problem)
                raise
            except StoreError as error:
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                log.error("store.unavailable", reason=str(error))
                raise
            except Exception as error:  # anything else would end the task that waits for signals
                gateway.metrics.reload(is_good=False, is_counted=self._is_first or operator is not SIGNAL)
                log.exception("config.refused")
                raise ConfigurationError([f"it cannot be loaded: {type(error).__name__}; see the log"]) from None
            gateway.metrics.reload(is_good=True, is_counted=is_counted)
            log.info("config.reloaded", upstreams=list(gateway.config.upstreams), routes=len(gateway.config.routes))
            try:
                many = self._is_one_of_many
                await gateway.store.write(lambda tx: keep_reload(tx, operator, gateway.now(), is_one_of_many=many))
            except StoreError as error:  # the reload is logged below all the same
                log.error("store.unavailable", reason=str(error))
            log.warning("operator.reload", who=operator.who, origin=operator.origin)
