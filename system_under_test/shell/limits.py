"""Every bound of the shell, with its reason. None of them is the machine's business: it has its own."""

MESSAGE_BYTES_MAX = 1_048_576
"""One WebSocket message or request body; the contract of a venue is far below and is the machine's to refuse."""

ANSWER_BYTES_MAX = 8 * 1_048_576
"""One HTTP answer read as a client: a full list of instruments is a few megabytes."""

WAITING_BYTES_MAX = 4 * 1_048_576
"""Bytes queued for one peer that does not take them; beyond it the connection is closed, never the loop blocked."""

WRITER_BYTES_MAX = 64 * 1_048_576
"""Records queued for a writer that does not take them; the machine's own queue is far smaller."""

CONNECTIONS_MAX = 512
"""Connections of one listening port."""

REQUESTS_MAX = 512
"""Requests in flight, as a client of all links together and as a server of one port."""

IDLE_S = 30.0
"""A connection on which no request has been completed for so long is closed: slow senders hold nothing."""

BODY_S = 5.0
"""A request's body has arrived by now or the connection is closed."""

ANSWER_S = 120.0
"""A machine that has not answered a request by now never will; the connection is closed unanswered."""

CONNECT_S = 3.0
"""A dial that is not up by now has failed."""

REQUEST_S = 10.0
"""A request of ours that is not answered by now is unanswered."""

CLOSE_S = 0.5
"""A peer that does not answer a closing handshake by now is cut off."""

WRITER_STOP_S = 1.0
"""A writer that has not written what it was given by now is stalled, and is ended."""

STOP_S = 2.0
"""After so long an orderly stop is forced."""

TURN_VALUES = 64
"""Values handled in one turn of the loop, before timers and sockets get theirs."""

NOTES_AT_ONCE = 256
"""Note lines handed to the disk in one write."""

NOTES_WAITING_MAX = 10_000
"""Note lines kept while the disk refuses them; beyond it they are counted, not kept."""
