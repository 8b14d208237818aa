"""Every bound of the toolkit, with its reason. Hitting one is recorded by name and never reads as a pass."""

from __future__ import annotations

DRILL_FILE_BYTES_MAX = 65_536
"""A drill is read by people; anything larger is a mistake or an attack."""

SPEC_FILE_BYTES_MAX = 1_048_576
"""Stacks, policies, rules and checklists: the largest of ours takes 24 kB."""

SPEC_VALUES_MAX = 100_000
"""So many values no such file stands for, its aliases written out: ours have about two thousand."""

DRILL_FAULTS_MAX = 64
"""More faults than this in one drill cannot be explained on one page."""

MOMENTS_MS_MIN = 100
"""Acts of a drill happen in one moment or at least so far apart: so long before a moment everything of it is handed to the
world, and of the one before, nothing is to be under way then."""

DRILL_DURATION_MS_MAX = 24 * 3_600_000
"""One drill never asks for more than a day."""

DOCUMENT_BYTES_MAX = 1_048_576
"""A surface's answer is cut here: a status document is about 2 kB."""

FILE_CHANGES_PER_S_MAX = 250
"""So many changes of one file are told in a second, and beyond them its grid alone: a file of state has one or two."""

DOCUMENT_DEPTH_MAX = 64
"""Deeper JSON than this has no lawful reading in any contract and could exhaust a recursive reader."""

ANSWER_MS_MAX = 2_000
"""A surface that has not answered by now is silent; the next slots were recorded as missed meanwhile."""

TAPE_LINES_MAX = 4_000_000
"""A day of a surface that is asked every 50 ms has 1.7 million, and each clock that is read once a second 86,400 more: that of
``python -m bench judging --virtual-min 1440``, with eight clocks, 2.4 million."""

DOCUMENTS_BYTES_MAX = 32 * 1_048_576
DOCUMENT_BYTES_A_SLOT = 512
"""All documents of a recording together take at most the first and as much as the second for each slot; what comes then
is raw. An ordinary document costs 150 B, a surface that answers with megabytes would fill disk and memory."""

TAPE_LINE_BYTES_MAX = 4 * DOCUMENT_BYTES_MAX
"""No line of a recording is longer; a longer one is read as damage and not into memory."""

ROW_BYTES_MAX = 1_048_576
"""A row of a node's stream is about 200 B; a line without end is none."""

EVIDENCE_ROOM_BYTES_MIN = 1_048_576
"""With less room than this on its disk a recording is ended, while it can still be sealed and judged."""

STREAM_BYTES_MAX = 128 * 1_048_576
"""One node's append-only stream is copied into the recording up to here: the reference stack's busiest writes this in
ten hours. Judging reads it by the block, again for each law that asks about its rows."""

NODE_FILE_BYTES_MAX = 512 * 1_048_576
"""No file that a node writes, its log included, grows beyond this: the kernel refuses the write."""

LOG_BYTES_MAX = 16 * 1_048_576
"""A process of a run that prints more has its log cut back to this: a node in a loop must not fill the disk."""

SOCKET_NEWS_BYTES_MAX = 4 * 1_048_576
"""The kernel keeps this much news of ended connections for us; more at once would be lost, and with it a witness."""

ANSWER_SHOWN_CHARS = 2_048
"""How much of the answer to a stimulus is kept: enough to see why it was not taken."""

RAW_HEAD_BYTES = 512
"""How much of an answer that is no JSON object is kept to show what it was."""

PROXY_CALL_MS_MAX = 3_000
"""toxiproxy-python has no timeout of its own, and removing a toxic can hang the server's API."""

ENGINE_CALL_MS_MAX = 90_000
"""A call of the container engine takes milliseconds; two cores that started four stacks at once waited for more than 20 s."""

AGENT_ANSWER_MS_MAX = 20_000
"""The agent in a node's keeper answers in less than a millisecond; this long only when the engine hangs."""

CONTAINER_PIDS_MAX = 256
"""Processes and threads of one container: the reference trader has four."""

NODE_START_MS_MAX = 90_000
"""A node that is not ready by now has failed to start; ten interpreters that start at once on a busy machine take a while."""

NODE_STOP_MS_MAX = 3_000
"""After this long an orderly stop becomes a kill."""

KEYFRAME_EVERY = 200
"""A whole document is recorded at least this often, so that a damaged delta loses at most ten seconds at 50 ms."""

GRAIN_PERIODS, GRAIN_SLACK_MS = 3, 10
"""A window counts as covered while usable samples are at most this many sampling periods apart (DESIGN, section 4), and the
little by which requests may leave late: else two slots that are missed would be lawful or not by a millisecond."""

PACK_FILES_MAX = 4_096
"""Twenty-one drills make about 430 files; a folder with more than this is not a pack."""

PACK_FILE_BYTES_MAX = 512 * 1_048_576
"""No file of a pack is larger: the largest is a node's stream, bounded by STREAM_BYTES_MAX."""

PACK_TEXT_BYTES_MAX = 16 * 1_048_576
"""Nor is any but a recording or a stream larger than this: a manifest of 4096 files takes 600 kB."""

RECORDING_BYTES_MAX = 4 * 1_073_741_824
"""A recording is unpacked up to here while it is checked; a small file that unpacks to more is an attack."""

MATRIX_BYTES_MAX = 8 * 1_048_576
"""A hundred sabotages under twenty drills take about half a megabyte."""

MATRIX_SAYS_MAX = 400
"""Characters of what a check said of a sabotage that go into the matrix; the whole follows from running it again."""

SUMMARY_LINES_MAX = 64
"""One printed page of A4 at the usual 6 lines an inch, with margins of half an inch."""

SUMMARY_COLUMNS_MAX = 95
"""What a printer puts on one line of that page without wrapping."""

RUN_LOG_LINE_BYTES_MAX = 16_384
"""A line of the run log says what was tried and what came of it; it holds no results."""

RUN_NOTES_MAX = 400
"""Log lines of one drill shown in a pack's run_logs/; the whole stream lies beside the recording."""

BUILD_FILES_MAX, BUILD_BYTES_MAX = 20_000, 512 * 1_048_576
"""So much lies in a folder that a command names: every run reads all of it for its digest."""
