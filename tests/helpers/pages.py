"""Reads an HTML page as a browser would, as far as tests ask."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Elements of a page: tag and attributes; the rows of its tables; its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._tag = ""
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._tag = tag
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._tag = ""
        self._in_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self._tag not in ("style", "script"):
            self.text += data
        if self._in_cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row[0].startswith(name))

    def attributes(self, *names: str) -> list[str]:
        return [attrs[name] for _, attrs in self.elements for name in names if name in attrs]
