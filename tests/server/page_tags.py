"""What the tests of the reports read a page with, and a name that tries to break out of one."""

from html.parser import HTMLParser

from plotly.offline import get_plotlyjs

HOSTILE = "Mercy</script><script>alert(1)</script> & <img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    """Every start tag with its attributes, and the scripts' contents."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


def without_plotly(page: str) -> str:
    return page.replace(get_plotlyjs(), "")
