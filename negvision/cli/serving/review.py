"""The local page of ``negvision audit --review``: one suspect after the other, keys to decide."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from negvision.audit.decisions import ACCEPTED, REJECTED, Decisions
from negvision.audit.page import crop, words
from negvision.data.suspects import KINDS, Suspect
from negvision.errors import DatasetError

_SIDE = 720
# A request to decide holds two short values.
MAX_BODY = 1 << 12
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Review of suspects</title>
<link rel="icon" href="data:,">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto; }
body { padding: 0 1rem; }
img { max-width: 100%; max-height: 70vh; display: block; margin: .75rem 0; }
button { font: inherit; padding: .3rem .9rem; margin-right: .5rem; }
.soft { color: #59616b; } [aria-pressed=true] { font-weight: 700; }
</style></head><body>
<p><label>Kind <select id="kind"><option value="">all</option></select></label>
<span id="count" class="soft" role="status"></span></p>
<p><strong id="head"></strong><br><span id="words"></span><br>
<span id="path" class="soft"></span></p>
<img id="crop" alt="">
<p><button id="accept">Accept (a)</button><button id="reject">Reject (r)</button>
<button id="undo">Undecided (u)</button><button id="back">Back (←)</button>
<button id="next">Next (→)</button></p>
<p class="soft">Accept: the label is wrong, as proposed. Reject: the label is right. Decisions are
written at once, and the next audit with the same --out takes them into account.</p>
<p id="error" role="alert"></p>
<script>
let all = [], shown = [], at = 0;
const by = id => document.getElementById(id);
function show() {
  const one = shown[at];
  const open = all.filter(s => !s.decision).length;
  by("count").textContent = one ? `${at + 1} of ${shown.length}, ${open} undecided` : "no suspects";
  by("head").textContent = one ? `${one.kind}: ${one.meaning} (${one.chance})` : "";
  by("words").textContent = one ? one.words.join("; ") : "";
  by("path").textContent = one ? one.image : "";
  by("crop").src = one ? `crop/${one.number}` : "data:,";
  by("crop").alt = one ? one.words.join("; ") : "";
  for (const name of ["accept", "reject"])
    by(name).setAttribute("aria-pressed", String(!!one && one.decision === name));
}
function move(step) { at = Math.max(0, Math.min(shown.length - 1, at + step)); show(); }
async function decide(decision) {
  const one = shown[at];
  if (!one) return;
  const answer = await fetch("decide", {
    method: "POST", headers: {"Content-Type": "application/json"},
    body: JSON.stringify({number: one.number, decision}),
  });
  by("error").textContent = answer.ok ? "" : await answer.text();
  if (answer.ok) { one.decision = decision; if (decision) move(1); show(); }
}
function filter() {
  shown = all.filter(s => !by("kind").value || s.kind === by("kind").value);
  at = Math.max(0, shown.findIndex(s => !s.decision));
  show();
}
const keys = {a: () => decide("accept"), r: () => decide("reject"), u: () => decide(null),
  ArrowLeft: () => move(-1), ArrowRight: () => move(1)};
document.addEventListener("keydown", event => {
  if (event.target.tagName !== "SELECT" && keys[event.key] && !event.ctrlKey && !event.metaKey) {
    event.preventDefault(); keys[event.key]();
  }
});
by("accept").onclick = keys.a; by("reject").onclick = keys.r; by("undo").onclick = keys.u;
by("back").onclick = keys.ArrowLeft; by("next").onclick = keys.ArrowRight;
by("kind").onchange = filter;
fetch("suspects").then(answer => answer.json()).then(found => {
  all = found;
  for (const kind of new Set(all.map(s => s.kind))) by("kind").add(new Option(kind, kind));
  filter();
});
</script></body></html>
"""


class ReviewApp:
    """An ASGI app that shows suspects and takes decisions.

    Args:
        found: The suspects, in the order in which they are shown.
        decisions: Are written as they are made.
        read: From the name of an image to its pixels, (H, W, 3) uint8, RGB.
    """

    def __init__(
        self, found: Sequence[Suspect], decisions: Decisions, read: Callable[[str], np.ndarray]
    ) -> None:
        self.found, self.decisions, self.read = found, decisions, read

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = dict(scope["headers"])
        status, kind, answer = self._answer(scope["method"], scope["path"], headers, body)
        content_type = (b"content-type", kind.encode())
        start = {"type": "http.response.start", "status": status, "headers": [content_type]}
        await send(start)
        await send({"type": "http.response.body", "body": answer})

    def _answer(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> tuple[int, str, bytes]:
        name = path.strip("/")
        number = name.removeprefix("crop/")
        if method == "GET" and not name:
            return 200, "text/html; charset=utf-8", _PAGE.encode()
        if method == "GET" and name == "suspects":
            return 200, "application/json", json.dumps(self._listing()).encode()
        if method == "GET" and name.startswith("crop/") and number.isdecimal():
            return self._crop(int(number))
        # Forms of other pages cannot send JSON.
        if method == "POST" and name == "decide":
            if headers.get(b"content-type") != b"application/json":
                return 415, "text/plain", b"send JSON"
            return self._decide(body)
        return 404, "text/plain", b"not found"

    def _listing(self) -> list[dict[str, Any]]:
        decided = self.decisions.of(self.found)
        return [
            {
                "number": number,
                "kind": one.kind,
                "meaning": KINDS[one.kind],
                "image": one.image,
                "words": words(one),
                "chance": f"score {one.score:.2f}"
                if one.probability is None
                else f"{one.probability:.0%}",
                "decision": decided.get(one),
            }
            for number, one in enumerate(self.found)
        ]

    def _crop(self, number: int) -> tuple[int, str, bytes]:
        if number >= len(self.found):
            return 404, "text/plain", b"not found"
        one = self.found[number]
        try:
            pixels = crop(self.read(one.image), one, _SIDE)
        except DatasetError as error:
            return 404, "text/plain; charset=utf-8", str(error).encode()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        return 200, "image/jpeg", buffer.getvalue()

    def _decide(self, body: bytes) -> tuple[int, str, bytes]:
        try:
            wanted = json.loads(body)
            one = self.found[wanted["number"]]
            decision = wanted["decision"]
        except (ValueError, KeyError, TypeError, IndexError):
            return 400, "text/plain", b"number and decision"
        if decision not in (ACCEPTED, REJECTED, None):
            return 400, "text/plain", b"accept, reject or null"
        self.decisions.decide(one, decision)
        return 200, "application/json", b"{}"
