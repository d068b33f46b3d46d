"""One request and its answer: sent to an endpoint, again if that is right, and carried back as it comes.

Bodies stream in both directions. What one side does not take is not acknowledged to the other, so each stream's window
bounds what is held here. The beginning of a request's body is kept as long as the request may have to be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.model.balance import Unavailable
from mesh.model.workload import WorkloadUid
from waypoint.channel import Channel
from waypoint.exchange.grpc_messages import Messages
from waypoint.exchange.replies import send_reply
from waypoint.exchange.upstreams import Ticket, Upstreams, Version
from waypoint.http.message import Requester, RequestHead, Responder, ResponseHead
from waypoint.plan.hop import Hop
from waypoint.routing.replies import denied, local_reply
from waypoint.routing.request import Client, Forward, Headers, Reply
from waypoint.routing.retry import IDEMPOTENT, Again, Failure, Outcome, decide, time_of_attempt
from waypoint.splice import Splice

MOST_KEPT = 64 << 10  # bytes of a request's body that are kept for another attempt

# Envoy's response flags.
NO_ENDPOINT, CONNECT_FAILED, BROKEN, TIMED_OUT, CLIENT_LEFT = "UH", "UF", "UC", "UT", "DC"
DENIED = "RBAC"


@dataclass(slots=True, eq=False)
class Record:
    """What became of a request, for metrics and the access log. Sizes are of bodies, in bytes."""

    client: Client
    method: str
    authority: str
    target: str
    version: str
    started: float  # of the loop's clock
    route: str = ""
    hop: Hop | None = None
    status: int = 0
    grpc_status: str = ""
    received: int = 0
    sent: int = 0
    flags: str = "-"
    reason: str = ""
    attempts: int = 0
    headers: Headers = field(default=())
    is_grpc: bool = False
    messages_received: int = 0  # of gRPC, from the client
    messages_sent: int = 0
    first_byte: float = 0.0


Choose = Callable[[Forward, frozenset[WorkloadUid]], "tuple[Hop, Version] | Unavailable"]
Finished = Callable[["Record"], None]


class HttpExchange:
    """Implements message.Exchange towards its client and upstreams.Caller towards the endpoint."""

    __slots__ = (
        "_avoid",
        "_body_held",
        "_choose",
        "_finished",
        "_forward",
        "_head",
        "_head_only",
        "_interim_seen",
        "_kept",
        "_kept_size",
        "_loop",
        "_messages",
        "_pending",
        "_random",
        "_record",
        "_repeated",
        "_replayable",
        "_request_over",
        "_request_trailers",
        "_requester",
        "_responded",
        "_responder",
        "_response_held",
        "_reused",
        "_splice",
        "_ticket",
        "_timer",
        "_upstreams",
        "over",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upstreams: Upstreams,
        responder: Responder,
        head: RequestHead,
        forward: Forward,
        choose: Choose,
        record: Record,
        finished: Finished,
        chance: Callable[[], float],
    ) -> None:
        """`head` is what is sent; `choose` draws an endpoint for each attempt."""
        self._loop = loop
        self._upstreams = upstreams
        self._responder = responder
        self._head = head
        self._forward = forward
        self._choose = choose
        self._record = record
        self._finished = finished
        self._random = chance
        self._avoid: frozenset[WorkloadUid] = frozenset()
        self._requester: Requester | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pending: list[bytes] = []  # of the request's body: came while there is nobody to send it to
        self._kept: list[bytes] = []  # of it: sent, and kept for another attempt
        self._kept_size = 0
        self._messages = (Messages(), Messages()) if record.is_grpc else None  # from the client, and to it
        self._replayable = True
        self._body_held = 0  # of the request's body: not acknowledged
        self._response_held = 0
        self._request_over = not head.length
        self._request_trailers: Headers = ()
        self._repeated = 0
        self._reused = False
        self._responded = False
        self._splice: Splice | None = None  # of a connection that was upgraded
        self._head_only = False  # the answer is complete with its head
        self.over = False

    def start(self) -> HttpExchange:
        self._attempt()
        return self

    def cut(self, reason: str) -> None:
        """It is not allowed any more."""
        if self._splice is not None:
            self._record.flags = DENIED
            self._splice.cut(reason)
            return
        self._take_back()
        if self._responded:
            self._broken(reason, DENIED)
        else:
            self._finish_with(denied(self._forward.request), DENIED, reason)

    # --- attempts

    def _attempt(self) -> None:
        self._timer = None
        if self.over:
            return
        chosen = self._choose(self._forward, self._avoid)
        if isinstance(chosen, Unavailable):
            self._reply(503, chosen.reason, NO_ENDPOINT)
            return
        hop, version = chosen
        self._record.hop = hop
        self._record.attempts += 1
        limit = time_of_attempt(self._forward.timeouts, self._loop.time() - self._record.started)
        if limit is not None:
            self._timer = self._loop.call_later(limit, self._attempt_timed_out)
        self._ticket = self._upstreams.open(hop, self._record.client, version, self._head, self)

    def opened(self, requester: Requester, reused: bool) -> None:
        self._ticket, self._requester, self._reused = None, requester, reused
        if not self._head.length:
            return
        pending, self._pending = [*self._kept, *self._pending], []
        self._kept, self._kept_size = [], 0
        for data in pending:
            self._send(requester, data)
        if not requester.congested:
            self._relieve_client()
        if self._request_over:
            requester.finish(self._request_trailers)

    def response_failed(self, reason: str, reached: bool) -> None:
        """Also when no connection could be had."""
        self._ticket = self._requester = None
        if self._responded:
            self._broken(reason)
            return
        if reached and self._reused and self._head.method in IDEMPOTENT:
            reached = False  # the server may end an idle connection at any time (RFC 9112 section 9.3.1)
        if not reached and self._record.hop is not None and not self._reused:
            self._avoid |= {self._record.hop.workload.uid}
        failure = Failure.BROKEN if reached else Failure.UNSENT
        if not self._again(failure):
            self._reply(503, reason, BROKEN if reached else CONNECT_FAILED)

    def _attempt_timed_out(self) -> None:
        self._timer = None
        self._take_back()
        if self._responded:
            self._broken("the response took too long", TIMED_OUT)
        elif not self._again(Failure.TIMED_OUT):
            self._reply(504, "the destination did not answer in time", TIMED_OUT)

    def _again(self, outcome: Outcome) -> bool:
        """Whether it is tried once more."""
        request = self._forward.timeouts.request
        left = request - (self._loop.time() - self._record.started) if request > 0 else None
        verdict = decide(
            self._forward.retry, self._repeated, outcome, self._head.method, self._random(),
            replayable=self._replayable, left=left,
        )  # fmt: skip
        if not isinstance(verdict, Again):
            return False
        self._repeated += 1
        self._stop_timer()
        self._timer = self._loop.call_later(verdict.delay, self._attempt)
        return True

    # --- the client (message.Exchange)

    def request_body(self, pieces: list[memoryview]) -> None:
        size = sum(map(len, pieces))
        self._record.received += size
        self._body_held += size
        if self._messages is not None:
            self._messages[0].add(pieces)
        requester = self._requester
        if requester is None:
            self._pending += [bytes(piece) for piece in pieces]
            return
        for piece in pieces:
            self._send(requester, piece)
        if not requester.congested:
            self._relieve_client()

    def request_ended(self, trailers: Headers) -> None:
        self._request_over, self._request_trailers = True, trailers
        if self._requester is not None and self._head.length:
            self._requester.finish(trailers)

    def client_lost(self, reason: str) -> None:
        self._take_back()
        self._record.flags, self._record.reason = CLIENT_LEFT, reason
        self._finish()

    def client_drained(self) -> None:
        held, self._response_held = self._response_held, 0
        if held and self._requester is not None:
            self._requester.acknowledge(held)

    def _send(self, requester: Requester, data: bytes | memoryview) -> None:
        requester.write(data)
        if not self._replayable:
            return
        self._kept_size += len(data)
        if self._kept_size > MOST_KEPT:
            self._replayable = False
            self._kept.clear()
        else:
            self._kept.append(bytes(data))

    def _relieve_client(self) -> None:
        held, self._body_held = self._body_held, 0
        if held:
            self._responder.acknowledge(held)

    # --- the endpoint (message.ResponseUser)

    def server_drained(self) -> None:
        self._relieve_client()

    def interim(self, status: int, headers: Headers) -> None:
        if not self._responded:
            self._responder.interim(status, headers)

    def response(self, head: ResponseHead) -> None:
        retry = self._forward.retry
        if retry is not None and head.status in retry.codes and self._again(head.status):
            requester, self._requester = self._requester, None
            if requester is not None:
                requester.cancel()
            return
        self._responded = True
        self._kept.clear()
        self._replayable = False
        head.headers = self._forward.answer(head.headers)
        self._head_only = head.ended
        record = self._record
        record.status, record.first_byte = head.status, self._loop.time()
        if record.is_grpc:
            record.grpc_status = _grpc_status(head.headers)
        try:
            self._responder.respond(head, ended=head.ended)
        except ValueError as error:
            self._take_back()
            self._responded = False
            self._reply(502, f"the response cannot be passed on: {error}", BROKEN)

    def response_body(self, pieces: list[memoryview]) -> None:
        responder, size = self._responder, 0
        for piece in pieces:
            responder.write(piece)
            size += len(piece)
        self._record.sent += size
        if self._messages is not None:
            self._messages[1].add(pieces)
        if responder.congested:
            self._response_held += size
        elif self._requester is not None:
            self._requester.acknowledge(size + self._response_held)
            self._response_held = 0

    def response_ended(self, trailers: Headers) -> None:
        self._requester = None
        if self._record.is_grpc and trailers:
            self._record.grpc_status = _grpc_status(trailers)
        self._relieve_client()
        if not self._head_only:
            self._responder.finish(trailers)
        self._finish()

    def upgraded(self, head: ResponseHead, channel: Channel, early: bytes) -> None:
        self._requester = None
        self._responded = True
        self._stop_timer()
        record = self._record
        record.status = 101
        client = self._responder.upgrade(head)
        sent_early = self._responder.early() if hasattr(self._responder, "early") else b""

        def done(splice: Splice, reason: str) -> None:
            record.received, record.sent, record.reason = splice.sent, splice.received, reason
            self._finish()

        splice = self._splice = Splice(client, channel, done)
        splice.push(sent_early)
        splice.pull(early)

    # --- ends

    def _reply(self, status: int, reason: str, flags: str) -> None:
        """An answer of our own; the request goes nowhere any more."""
        request = self._forward.request
        reply = local_reply(request, status, reason)
        self._finish_with(reply, flags)

    def _finish_with(self, reply: Reply, flags: str, reason: str = "") -> None:
        """`reason` is for the access log, if it is more than the client is told."""
        record = self._record
        record.status, record.flags = (200 if reply.grpc is not None else reply.status), flags
        record.reason = reason or reply.reason
        record.grpc_status = "" if reply.grpc is None else str(reply.grpc)
        self._relieve_client()
        record.sent = send_reply(self._responder, reply)
        self._finish()

    def _broken(self, reason: str, flags: str = BROKEN) -> None:
        """In the middle of a response: the client must see that it is not complete."""
        self._record.flags, self._record.reason = flags, reason
        self._responder.abort(reason)
        self._finish()

    def _take_back(self) -> None:
        ticket, self._ticket = self._ticket, None
        requester, self._requester = self._requester, None
        if ticket is not None:
            ticket.cancel()
        if requester is not None:
            requester.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self) -> None:
        self._stop_timer()
        if not self.over:
            self.over = True
            if self._messages is not None:
                self._record.messages_received, self._record.messages_sent = (each.count for each in self._messages)
            self._finished(self._record)


def _grpc_status(headers: Headers) -> str:
    return next((value for name, value in headers if name == "grpc-status"), "")
