"""A hook of mkdocs: a link that is written as a file's name reads as the page's title on the site."""

import re
from pathlib import Path
from typing import Any

_DOCS = Path(__file__).parent


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The text of a page, with `[scale.md](scale.md)` as the title of that page."""
    here = _DOCS / Path(page.file.src_path).parent

    def titled(link: re.Match[str]) -> str:
        name, anchor = link.groups(default="")
        if not (here / name).is_file():
            return link.group()  # mkdocs names what leads nowhere
        title = (here / name).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        return f"[{title}]({name}{anchor})"

    return re.sub(r"\[([\w/.-]+\.md)\]\(\1(#[\w-]+)?\)", titled, markdown)
