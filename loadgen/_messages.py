"""Messages between Locust and its engine, and how they go over the socket pair.

Each message is a Struct whose tag is its `op`; on the socket a four-byte length stands before each. Locust's
side (`loadgen.control`) and the engine's (`loadgen.engine`) both import this file, so it needs neither gevent
nor aiohttp. All `*_ns` are on the engine's time line.
"""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from loadgen.options._settings import Settings
from loadgen.options._shape import EngineLoad
from scenarios import MeasuredTexts
from turnbench.draws import pick, stream
from turnbench.outcomes import Outcome


class Job(msgspec.Struct, kw_only=True, frozen=True):
    """What one worker's engine has to know of a run; sent before the first person starts."""

    run: str
    worker: int
    workers: int
    """W: worker w plays conversations w, w + W, w + 2W, ..."""
    settings: Settings
    load: EngineLoad = EngineLoad()
    scenario: str
    """The scenario's text, whole."""
    salt: str
    model: str
    """As the run's record shows it; `model_of` says which one a conversation has."""
    models: dict[str, float] = {}
    """Of several models their shares; empty: there is one."""
    usage_in_events: bool
    """Whether the server knows stream_options.continuous_usage_stats."""
    context: int | None = None
    """Tokens of the model's context, where the server tells."""
    measured: MeasuredTexts | None = None
    """How the served model's tokenizer counts texts that are made to a length; None: it was not asked."""
    dialect: str = "chat"
    """Key of loadgen.dialects.DIALECTS: how the server is asked."""
    counts_path: str = ""
    """Where the engine itself keeps its counts of turns, for whoever outlives it; empty, or no file of that
    name: they are reported as TurnBegun."""

    def model_of(self, conversation: int) -> str:
        """The model of this conversation: of several, drawn from the seed and its number alone."""
        if not self.models:
            return self.model
        draw = next(stream(self.settings.seed, "model", conversation))
        return list(self.models)[pick(draw, tuple(self.models.values()))]


class EngineMessage(msgspec.Struct, tag_field="op"):
    """What all messages have in common."""


# --- from Locust to the engine ---


class StartRun(EngineMessage, tag="job"):
    """Forget the run before and get ready for this one; answered by RunReady or JobRefused."""

    job: Job


class PlayConversations(EngineMessage, tag="play"):
    """Play one conversation after the other for this Locust user, until it leaves or the level ends.

    UserDone or NothingToPlay follows.
    """

    user: int


class UserLeaves(EngineMessage, tag="leave"):
    """This user begins no further turn; the one under way goes on to its end."""

    user: int


class ArrivalSchedule(msgspec.Struct, frozen=True):
    """Open loop: when the conversations of a level arrive."""

    start_ns: int
    first: int
    """Number of the first conversation."""
    rate_per_s: float
    """Over all workers."""
    spans_s: list[float]
    """Parts of the level, a warm-up and a window, each of which is offered exactly the rate asked for."""
    ramp_to_per_s: float | None = None
    """The rate changes evenly to this one over all spans."""
    replay_speed: float | None = None
    """The conversations of a trace arrive at its own times, at this multiple of them, and at no rate."""


class BeginLevel(EngineMessage, tag="level"):
    """People may begin; in open loop `arrivals` says when they come."""

    level: int
    arrivals: ArrivalSchedule | None = None


class MeasureWindow(EngineMessage, tag="measure"):
    """Turns that are sent in [start_ns, end_ns) are measured; null: the end is not known yet."""

    start_ns: int
    end_ns: int | None = None


class CloseLevel(EngineMessage, tag="close"):
    """Say LevelClosed once no measured turn is open, or after `drain_s`; the load stays on."""

    level: int
    drain_s: float


class CutLevel(EngineMessage, tag="cut"):
    """End every conversation now; answered by LevelCut."""

    level: int


class StopTurns(EngineMessage, tag="quiet"):
    """Begin no further turn; answered by TurnsStopped once none is open, or after `drain_s`."""

    drain_s: float


class FinishRun(EngineMessage, tag="finish"):
    """The run is over; answered by RunFinished after the last record."""


class ShowAnswer(EngineMessage, tag="show"):
    """Somebody looks on: say how one conversation's answer stands; answered by AnswerShown."""


class Ping(EngineMessage, tag="ping"):
    """Answered at once by a Pong with the same number."""

    n: int


ToEngine = (
    StartRun
    | PlayConversations
    | UserLeaves
    | BeginLevel
    | MeasureWindow
    | CloseLevel
    | CutLevel
    | StopTurns
    | FinishRun
    | ShowAnswer
    | Ping
)


# --- from the engine to Locust ---


class RunReady(EngineMessage, tag="ready"):
    """The engine waits for its first level."""


class JobRefused(EngineMessage, tag="refused"):
    """The engine can't play the job."""

    why: str


class TurnEnded(EngineMessage, tag="turn"):
    """A finished attempt: its record, and what Locust's own statistics show of it."""

    line: bytes
    """The TurnRecord as JSON."""
    task: str
    outcome: Outcome
    done: bool
    """Whether no other attempt at the same turn follows."""
    error: str | None
    chars: int
    ttg_ms: float | None


class TurnBegun(EngineMessage, tag="begun"):
    """A turn begins, and the engine cannot write down itself what a kill leaves behind. The counts are
    cumulative, this turn included."""

    planned: int
    dropped: int
    begun: int
    finished: int


class HealthSampled(EngineMessage, tag="health"):
    """A line of health-W.jsonl."""

    line: bytes


class ServerSampled(EngineMessage, tag="server"):
    """A line of server.jsonl."""

    line: bytes


class GpuSampled(EngineMessage, tag="gpu"):
    """A line of gpu.jsonl."""

    line: bytes


class UserDone(EngineMessage, tag="played"):
    """This user has left, or the level has ended, and the last conversation is over."""

    user: int


class NothingToPlay(EngineMessage, tag="exhausted"):
    """The scenario has no conversation left for this user."""

    user: int


class LevelClosed(EngineMessage, tag="closed"):
    """How many measured turns were still open when the drain was over."""

    level: int
    open: int


class LevelCut(EngineMessage, tag="was_cut"):
    """The lowest number from which on this worker has begun no conversation."""

    level: int
    next: int


class TurnsStopped(EngineMessage, tag="is_quiet"):
    """No turn is under way any more, or the drain is over."""


class RunFinished(EngineMessage, tag="finished"):
    """Every record of the run has been sent."""


class AnswerShown(EngineMessage, tag="answer_shown"):
    """The end of one answer as far as it has come, without secrets; the same conversation for as long as it
    is under way."""

    task: str
    conversation: int
    turn: int
    text: str


class Pong(EngineMessage, tag="pong"):
    """The engine's time when it read the Ping."""

    n: int
    here_ns: int


class NotOnTheWire(EngineMessage, tag="not_on_the_wire"):
    """Arrivals are not taken from packets, though `--clock auto` would have done so; said once a run."""

    why: str


class StreamsCompressed(EngineMessage, tag="compressed"):
    """The server compresses its streams, though identity was asked for; said once a run."""

    encoding: str


class RequestChanged(EngineMessage, tag="request_changed"):
    """The server refused something in a request, and is asked otherwise from now on; once a run each."""

    what: str


class AnswersOdd(EngineMessage, tag="odd"):
    """Answers are of a kind that few servers send, and were read all the same; said once a run and kind."""

    what: str


FromEngine = (
    RunReady
    | JobRefused
    | TurnBegun
    | TurnEnded
    | HealthSampled
    | ServerSampled
    | GpuSampled
    | UserDone
    | NothingToPlay
    | LevelClosed
    | LevelCut
    | TurnsStopped
    | RunFinished
    | AnswerShown
    | Pong
    | NotOnTheWire
    | StreamsCompressed
    | RequestChanged
    | AnswersOdd
)


# --- on the socket ---

_LENGTH = struct.Struct("!I")
_encoder = msgspec.msgpack.Encoder()
TO_ENGINE: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
FROM_ENGINE: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)

T = TypeVar("T")


def pack(message: EngineMessage) -> bytes:
    """A message as it goes over the socket."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Unpacker(Generic[T]):
    """Whole messages out of whatever pieces a socket delivers; made for TO_ENGINE or FROM_ENGINE.

    `feed` raises msgspec.DecodeError for what is no message of that direction.
    """

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        self._buffer += data
        found: list[T] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            end = position + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            found.append(self._decoder.decode(self._buffer[position + _LENGTH.size : end]))
            position = end
        del self._buffer[:position]
        return found
