"""What is wrong with an HTML page that should hold all it needs: tags, and what it would load."""

import html.parser
import re
import urllib.parse

# They have no end tag.
_VOID = {"br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
_LOADS = ("src", "srcset", "poster", "data", "background", "action", "formaction", "ping")
_NEVER = {"script", "iframe", "object", "embed", "link", "base", "form", "svg"}


def faults(page: str) -> list[str]:
    """A line for each tag that is not closed or not open, script, and address outside the page.

    Pictures must be in the page; links may lead to neighbours, not to another host.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    found = reader.found + [f"<{tag}> is never closed" for tag in reader.open]
    if not page.startswith("<!DOCTYPE html>"):
        found.append("no <!DOCTYPE html>")
    found += [f"style loads {match}" for match in re.findall(r"@import|url\([^)]*\)", reader.style)]
    return found


class _Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        self.style = ""

    def handle_starttag(self, tag, attrs):
        if tag in _NEVER:
            self.found.append(f"<{tag}>")
        if tag not in _VOID:
            self.open.append(tag)
        names = [name for name, _ in attrs]
        if len(set(names)) < len(names):
            self.found.append(f"<{tag}> has an attribute twice: {names}")
        for name, value in attrs:
            value = value or ""
            if name in _LOADS and not value.startswith("data:image/png;base64,"):
                self.found.append(f"<{tag} {name}={value[:60]}>")
            if name.startswith("on"):
                self.found.append(f"<{tag} {name}>")
            if name == "style":
                self.style += value
            parts = urllib.parse.urlsplit(value)
            if name == "href" and (parts.scheme or parts.netloc):
                self.found.append(f"<{tag} href={value[:60]}>")

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.found.append(f"</{tag}> where {self.open[-3:]} are open")
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
