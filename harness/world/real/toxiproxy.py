"""The Toxiproxy server of one stack, spoken to by the toxiproxy-python client, and never believed unread.

The client keeps its server's address in class state, sets no timeouts and passes over 5xx answers. So each
``ProxyClient`` works with a copy of the client's modules of its own (two worlds in one process do not mix), its
requests get a timeout, every call runs under a deadline, and whatever is set is read back and compared.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import itertools
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import requests

from harness import limits
from harness.errors import NotApplied, NotHealed, WorldError
from harness.world.real.effects import Toxic

Result = TypeVar("Result")
_copies = itertools.count()
if importlib.util.find_spec("toxiproxy"):
    importlib.import_module("toxiproxy")  # with what it imports, whose bare excepts could swallow a signal later on

STATED = ("type", "stream", "toxicity", "attributes")
"""What a toxic is, as the server states it."""


class TooLate(WorldError):
    """A call did not end by its deadline; its thread is left to die with us."""


def by_deadline(act: Callable[[], Result], deadline_ms: int, what: str) -> Result:
    """Run ``act`` in a thread of its own; raises TooLate when it has not ended in time."""
    box: dict[str, Any] = {}

    def carry() -> None:
        try:
            box["result"] = act()
        except BaseException as why:  # handed to the caller, whatever it is
            box["error"] = why

    thread = threading.Thread(target=carry, name=what, daemon=True)
    thread.start()
    thread.join(deadline_ms / 1000)
    if thread.is_alive():
        raise TooLate(f"{what}: no end within {deadline_ms} ms")
    if "error" in box:
        raise box["error"]
    result: Result = box["result"]
    return result


class ProxyClient:
    """The client for one server. Every method raises WorldError and nothing else."""

    def __init__(self, host: str, port: int, deadline_ms: int = limits.PROXY_CALL_MS_MAX) -> None:
        self._deadline_ms = deadline_ms
        package = _copy_of_client()
        package.api.requests = _timed_requests(deadline_ms / 1000)
        self._get = package.api.APIConsumer.get
        self._server = package.Toxiproxy()
        self._server.update_api_consumer(host, port)
        self._made: dict[str, Any] = {}
        """what was created, so that nothing need be looked up at the moment of a fault"""

    def version(self) -> str:
        """The version that the running server states."""
        text = self._call("version", lambda: self._server.version())
        if text is None:
            raise WorldError("Toxiproxy does not answer")
        return str(self._call("version", lambda: json.loads(text)["version"]))

    def create(self, name: str, listen: str, upstream: str) -> None:
        """Make a proxy and read it back. Raises NotApplied."""
        self._call(f"create {name}", lambda: self._server.create(upstream=upstream, name=name, listen=listen,
                                                                 enabled=True))
        proxy = self._proxy(name)
        found = {"listen": proxy.listen, "upstream": proxy.upstream, "enabled": proxy.enabled}
        if found != {"listen": listen, "upstream": upstream, "enabled": True}:
            raise NotApplied(f"proxy {name}: asked for {listen} → {upstream}, read back {found}")
        self._made[name] = proxy

    def add(self, proxy: str, toxic: Toxic) -> dict[str, Any]:
        """Add a toxic and read it back. Raises NotApplied; returns what was read."""
        wanted = {"type": toxic.type, "stream": toxic.stream, "toxicity": 1.0, "attributes": dict(toxic.attributes)}
        self._call(f"add {toxic.name}", lambda: self._place(proxy).add_toxic(name=toxic.name, **wanted), NotApplied)
        found = self._call("read back", lambda: self.toxics(proxy).get(toxic.name), NotApplied)
        if found is None:
            raise NotApplied(f"toxic {toxic.name}: accepted by Toxiproxy, but not there when read back")
        if not _equal(found, wanted):
            raise NotApplied(f"toxic {toxic.name}: asked for {wanted}, read back {found}")
        return found

    def remove(self, proxy: str, name: str) -> None:
        """Remove a toxic, or find it gone. Raises NotHealed."""
        standing = self._call("read", lambda: self.toxics(proxy), NotHealed)
        if name in standing:
            place = self._call("read", lambda: self._proxy(proxy), NotHealed)
            try:
                self._call(f"remove {name}", lambda: place.destroy_toxic(name), NotHealed)
            except NotHealed:
                # A removal can hang, or lose a race, and yet have happened: what is there now decides.
                if self._locked(proxy):
                    self._make_anew(place, [_toxic(each, what) for each, what in standing.items() if each != name])
                elif name in self.toxics(proxy):
                    raise
        if name in self._call("read back", lambda: self.toxics(proxy), NotHealed):
            raise NotHealed(f"toxic {name}: removal accepted by Toxiproxy, but it is still there when read back")

    def _locked(self, proxy: str) -> bool:
        """Whether the server cannot even say what stands: for good, because a removal waits for a dead connection to
        take what a toxic held (Toxiproxy's issue 558), and everybody else waits for that removal."""
        try:
            self.toxics(proxy)
        except TooLate:
            return True
        return False

    def _make_anew(self, place: Any, toxics: list[Toxic]) -> None:
        """Delete a locked proxy and make it again, with the toxics that are to stay. Its connections are closed."""
        self._call(f"delete {place.name}", place.destroy, NotHealed)
        try:
            self.create(place.name, place.listen, place.upstream)
            for each in toxics:
                self.add(place.name, each)
        except NotApplied as why:
            raise NotHealed(f"proxy {place.name} was locked, and could not be made anew: {why}") from why

    def enable(self, proxy: str, on: bool) -> dict[str, Any]:
        """Switch a proxy on or off and read it back. Raises NotHealed or NotApplied."""
        error = NotHealed if on else NotApplied
        self._call("switch", lambda: self._place(proxy).enable() if on else self._place(proxy).disable(), error)
        found = self._call("read back", lambda: self._proxy(proxy).enabled, error)
        if found is not on:
            raise error(f"proxy {proxy}: asked for enabled={on}, read back {found}")
        return {"enabled": found}

    def toxics(self, proxy: str) -> dict[str, dict[str, Any]]:
        """The toxics of a proxy by name, as the server states them."""
        found = self._call("toxics", lambda: self._proxy(proxy).toxics())
        return {name: {"type": each.type, "stream": each.stream, "toxicity": each.toxicity,
                       "attributes": each.attributes} for name, each in found.items()}

    def state(self) -> dict[str, dict[str, Any]]:
        """Every proxy as the server states it, its toxics by name, in one answer."""
        answer = self._call("state", lambda: self._get("/proxies").json())
        try:
            return {name: {**each, "toxics": {toxic["name"]: {key: toxic[key] for key in STATED} for toxic in each["toxics"]}}
                    for name, each in answer.items()}
        except (AttributeError, KeyError, TypeError) as why:
            raise WorldError(f"Toxiproxy: state: what it answers is no list of proxies: {type(why).__name__}: {why}") from why

    def _place(self, name: str) -> Any:
        """Where to send a change of a proxy: of one that we made, it is known without asking."""
        return self._made.get(name) or self._proxy(name)

    def _proxy(self, name: str) -> Any:
        proxy = self._call("proxies", lambda: self._server.get_proxy(name))
        if proxy is None:
            raise WorldError(f"Toxiproxy has no proxy {name!r}")
        return proxy

    def _call(self, what: str, act: Callable[[], Result], error: type[WorldError] = WorldError) -> Result:
        try:
            return by_deadline(act, self._deadline_ms, f"Toxiproxy: {what}")
        except error:
            raise
        except Exception as why:  # the client lets requests', JSON's and key errors through, and its own
            raise error(f"Toxiproxy: {what}: {type(why).__name__}: {why}") from why


def _toxic(name: str, found: Mapping[str, Any]) -> Toxic:
    return Toxic(name, found["type"], found["stream"], found["attributes"])


def _equal(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Equal as far as asked: the server adds attributes that were left at their defaults."""
    attributes = found.get("attributes") or {}
    return (all(found.get(key) == wanted[key] for key in ("type", "stream", "toxicity"))
            and all(attributes.get(key) == value for key, value in wanted["attributes"].items())
            and all(value == 0 for key, value in attributes.items() if key not in wanted["attributes"]))


def _copy_of_client() -> Any:
    """toxiproxy-python, loaded once more under a name of its own, with class state of its own."""
    origin = importlib.util.find_spec("toxiproxy")
    if origin is None or origin.origin is None:
        raise WorldError("the package toxiproxy-python is not installed")
    name = f"_drillproof_toxiproxy_{next(_copies)}"
    spec = importlib.util.spec_from_file_location(name, origin.origin,
                                                  submodule_search_locations=[str(Path(origin.origin).parent)])
    if spec is None or spec.loader is None:
        raise WorldError(f"{origin.origin}: cannot be loaded")
    package: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)
    return package


def _timed_requests(timeout_s: float) -> SimpleNamespace:
    """``requests`` as the client uses it: with a timeout, without the environment's proxies, 5xx being errors."""

    def call(method: str, **keywords: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False  # an HTTP_PROXY of the person's shell must not stand between us and loopback
            response = session.request(method, timeout=timeout_s, **keywords)
        if response.status_code >= 500:
            response.raise_for_status()
        return response

    return SimpleNamespace(**{method: functools.partial(call, method) for method in ("get", "post", "delete")})
