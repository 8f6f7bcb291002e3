"""Parts of one self-contained HTML page: everything inline, no script, nothing fetched. All text is escaped here."""

import re
from collections.abc import Mapping, Sequence
from html import escape

from analysis.rendering.css import CSS
from analysis.rendering.marks import Picture
from analysis.rendering.tables import Strong, Table
from analysis.words import counted

# A table longer than this is cut on the page; its CSV is complete.
ROWS_SHOWN = 80
# Words up to this length stay on one line of their cell.
LONG_WORDS = 36
NO_BREAK = "\u00a0"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


# Escaped by the standard library: markupsafe writes quotes as other entities, which would change a page's bytes.
class Html(str):
    """Text that is HTML already; any other text is escaped before it goes into a page."""


def element(name: str, attributes: Mapping[str, str], *children: str) -> Html:
    """An HTML element with its children, escaped unless they are Html."""
    head = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{head}>{''.join(_html(child) for child in children)}</{name}>")


def joined(parts: Sequence[str]) -> Html:
    """Parts of a page, one after the other."""
    return Html("\n".join(_html(part) for part in parts))


def paragraph(*children: str) -> Html:
    return element("p", {}, *children)


def note(*children: str) -> Html:
    """A remark that a reader should not miss, such as why something is not available."""
    return element("p", {"class": "note"}, *children)


def section(name: str, title: str, *blocks: str) -> Html:
    """A section of the page with its heading, linked as #name."""
    heading = element("h2", {"id": f"{name}-title"}, title)
    return element("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, *blocks)


def definitions(items: Mapping[str, str], wide: bool = False) -> Html:
    """Names with their values, in columns, or in rows where values are long."""
    pairs = [element("div", {}, element("dt", {}, key), element("dd", {}, value)) for key, value in items.items()]
    return element("dl", {"class": "wide"} if wide else {}, *pairs)


def folded(summary: str, *blocks: str) -> Html:
    """Blocks folded behind a line that opens them; in print they are shown."""
    return element("details", {}, element("summary", {}, summary), *blocks)


def figure_block(picture: Picture) -> Html:
    """A figure with its title, caption and links to its files."""
    kinds = ["SVG", "PNG", *(["PDF"] if picture.pdf else [])]
    links = _links([(kind, f"figures/{picture.name}.{kind.lower()}") for kind in kinds])
    caption = element(
        "figcaption", {}, element("span", {"class": "title"}, picture.title), " ", picture.caption, " ", links
    )
    return element("figure", {"id": f"figure-{picture.name}"}, Html(picture.inline), caption)


def figure_grid(pictures: Sequence[Picture]) -> Html:
    """Figures side by side where there is room, else one below the other."""
    return element("div", {"class": "figures"}, *[figure_block(picture) for picture in pictures])


def table_block(table: Table) -> Html:
    """A table that scrolls in its own box, with caption and links to its files."""
    shown = table.rows[:ROWS_SHOWN]
    heads = [_cell("th", i, table, h, {"scope": "col"}) for i, h in enumerate(table.headers)]
    body = [
        element(
            "tr",
            {},
            *[_cell("td" if i else "th", i, table, c, {} if i else {"scope": "row"}) for i, c in enumerate(row)],
        )
        for row in shown
    ]
    files = [
        (kind, f"tables/{table.name}.{end}") for kind, end in (("CSV", "csv"), ("Markdown", "md"), ("LaTeX", "tex"))
    ]
    cut = (
        ""
        if len(shown) == len(table.rows)
        else f" The first {len(shown)} of {counted(len(table.rows), 'row')}; the files have all."
    )
    caption = element(
        "caption", {}, element("span", {"class": "title"}, table.title + "."), f" {table.caption}{cut} ", _links(files)
    )
    content = element(
        "table", {}, caption, element("thead", {}, element("tr", {}, *heads)), element("tbody", {}, *body)
    )
    attributes = {
        "class": "scroll",
        "role": "region",
        "tabindex": "0",
        "aria-label": table.title,
        "id": f"table-{table.name}",
    }
    return element("div", attributes, content)


def whole_page(
    title: str, description: str, header: Html, sections: Mapping[str, Html], titles: Mapping[str, str]
) -> str:
    """The document: header, contents, sections. titles: by section name, for the contents."""
    links = [element("li", {}, element("a", {"href": f"#{name}"}, titles[name])) for name in sections]
    contents = element("nav", {"aria-label": "Contents"}, element("ol", {}, *links))
    head = [
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        # Nothing runs and nothing is fetched, whatever a record contains.
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        # An empty icon, or a browser would request one.
        Html('<link rel="icon" href="data:,">'),
        Html(f'<meta name="description" content="{escape(description)}">'),
        element("title", {}, title),
        Html(f"<style>{CSS}</style>"),
    ]
    body = element("body", {}, header, contents, element("main", {}, *sections.values()))
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{joined(head)}\n</head>\n{body}\n</html>\n'


def strong(text: str) -> Html:
    """Text that stands out because a verdict says so."""
    return element("strong", {}, text)


def _cell(name: str, column: int, table: Table, text: str, attributes: Mapping[str, str]) -> Html:
    if column in table.left:
        extra = {"class": "words long" if len(text) > LONG_WORDS else "words"}
        return element(name, {**attributes, **extra}, strong(text) if isinstance(text, Strong) else text)
    # A numeric cell may break before its interval or its second number, and nowhere else.
    whole = text if name == "th" else re.sub(r" (?![\[·])", NO_BREAK, text)
    return element(name, attributes, whole)


def _links(files: Sequence[tuple[str, str]]) -> Html:
    links = [element("a", {"href": path}, kind) for kind, path in files]
    return element("span", {"class": "files"}, Html(" · ".join(links)))


def _html(text: str) -> str:
    if isinstance(text, Html):
        return text
    # A number stays on the line of its sign, and "n =" on the line of its number.
    return escape(re.sub(r"(?<=\d) (?=%)|(?<=\b[npα]) (?==)|(?<=[=<>]) (?=[−-]?\d)", NO_BREAK, text))
