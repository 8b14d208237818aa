"""Texts that try to break out of whatever shows them. Used by hostile nodes and by the tests that look for them."""

from __future__ import annotations

ESCAPE, CSI, BELL = "\x1b", "\x9b", "\x07"
SCRIPT = "</script><script>alert(1)</script>"
IMAGE = "\"'><img src=x onerror=alert(1)>"
COMMENT = "--><!-- ]]> <![CDATA["
LINK = "[a](javascript:alert(1)) ![b](http://127.0.0.1/x.png) `c` | d |"
FORMULA = "=cmd|' /C calc'!A0"
TERMINAL = f"{ESCAPE}[2J{ESCAPE}[31mPASS{ESCAPE}]0;title{BELL}{CSI}2J"
DIRECTION = "\u202eSSAP\u202c\u2066x\u2069\u200b\u200d\ufeff\u2028\u2029\u00ad\U000e0041"
LINES = "one\ntwo\r\nPASS everything\r\tthree"
TEMPLATE = "{{ 7*7 }}{% for a in b %}${jndi:ldap://127.0.0.1/a}%n%s{0}"

WORST = f"{SCRIPT}{IMAGE}{COMMENT}{LINK}{FORMULA}{TERMINAL}{DIRECTION}{LINES}{TEMPLATE}"

UNSHOWN = frozenset(TERMINAL + DIRECTION) - frozenset("[2J31mPASS]0;titlePSx")
"""No report and no terminal may hold one of these as it stands."""
