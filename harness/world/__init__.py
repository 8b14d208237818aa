"""Where a drill happens. The only rooms with sockets, processes, files and time.

A world has no opinion: it applies forces, reads them back, and writes facts to the tape. ``run.py`` drives
every world by the verbs below and cannot branch on what was seen, because nothing is returned but the two
answers it needs (does the given hold, has it converged).

Who writes what: the world writes samples, acts, probes, clocks, limits, and the marks of faults and stimuli
(``<fault>``, ``<fault>.healed``, ``<stimulus>``), because it alone knows when a force really began and ended;
``run.py`` writes the head, the marks of the drill's own course, and the seal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.drill.model import Fault, Force, Json, Predicate, Stimulus
from harness.recording.tape import Tape

WORLDS = ("sim", "local", "docker")
POLICY_BY_WORLD = {"sim": "reference", "local": "drill", "docker": "drill"}
"""The sim has time to wait out the contract's own dwells; real worlds use the short ones unless told otherwise."""


DrillAct = tuple[str, Fault | Stimulus]
"""heal | press | inject, and what; at one moment in this order"""


class World(Protocol):
    """The verbs. All times are milliseconds on the tape's clock (``start`` is 0)."""

    name: str

    def refuses(self, act: Force | Stimulus) -> str | None:
        """Why this world cannot do that, or None. The whole drill is asked before it starts."""
        ...

    def start(self, tape: Tape) -> None:
        """Bring the stack up. Raises WorldError when a node does not become ready."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since start, on the tape's clock."""
        ...

    def wall_ms(self) -> int:
        """Now as Unix time in milliseconds: the machine's own, which no fault moves."""
        ...

    def watch(self, surface: str, every_ms: int) -> None:
        """Sample a surface on a fixed grid from now on; allowed before start, because booting is worth seeing."""
        ...

    def carry_out(self, due_ms: int, acts: Sequence[DrillAct]) -> None:
        """Let time pass until ``due_ms``, then do what the drill has there: as ``heal``, ``press`` and ``inject`` do it,
        but each on time. What can be done ahead (undo written down, witnesses asked) is; what ends comes before what
        begins; what begins, begins together. Raises as they do, when all that was begun has ended.
        """
        ...

    def press(self, stimulus: Stimulus) -> None:
        """Carry out an act of an operator or the market, and record what answered."""
        ...

    def inject(self, fault: Fault) -> None:
        """Apply a fault and read it back; raises NotApplied. With placebo worlds: marks only, no force."""
        ...

    def heal(self, fault: Fault) -> None:
        """Undo a fault; idempotent; raises NotHealed."""
        ...

    def advance_to(self, at_ms: int) -> None:
        """Let time pass. The only place where it does."""
        ...

    def advance_until(self, predicate: Predicate, for_ms: int, by_ms: int) -> int | None:
        """Let time pass until the predicate has held for ``for_ms`` without a no or an unknown.

        Returns the time at which it had, or None when ``by_ms`` came first. For given and converge only.
        """
        ...

    def interrupt(self, why: BaseException) -> bool:
        """End the verb that is under way with ``why``, from a place where nothing is lost by it. Called by a signal's handler.

        False when the caller may as well raise it on the spot."""
        ...

    def stop(self) -> Mapping[str, Mapping[str, Json]]:
        """Stop everything, collect the streams into the run folder, leave nothing of ours behind. Idempotent.

        Returns stream name → ``{n, sha256, torn_bytes}``; ``run.py`` seals the tape with it. Works after a failed
        or interrupted start, too.
        """
        ...

    def describe(self) -> Mapping[str, Json]:
        """What the tape's head says about this world, the same for equal runs: world, placebo, build, proxy
        {kind, version, sha256}, surfaces {name: {every_ms, contract, node}}, links, nodes."""
        ...

    def versions(self) -> Mapping[str, Json]:
        """What may differ between equal runs, for versions.json: ports, pids, executables, platform."""
        ...


def one_by_one(world: World, acts: Sequence[DrillAct]) -> None:
    """Carry acts out one after the other, for worlds in which doing takes no time."""
    for verb, thing in acts:
        if isinstance(thing, Stimulus):
            world.press(thing)
        elif verb == "inject":
            world.inject(thing)
        else:
            world.heal(thing)
