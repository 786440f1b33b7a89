"""The head of every HTML page that this package writes. Its policy keeps a browser from running or loading anything.

Names in a page come from files that others wrote. They are escaped; if one ever were not, the policy still holds.
"""

import html

ALONE = "; ".join(  # a page that holds everything it shows
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


def policy_tag(policy: str = ALONE) -> str:
    """Make the element with a page's content security policy; it has to stand before everything that it is about.

    >>> policy_tag("img-src data:")
    '<meta http-equiv="Content-Security-Policy" content="img-src data:">'
    """
    return f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=False)}">'


def make_head(title: str, *, style: str = "", more: str = "", policy: str = ALONE) -> str:
    """Make what a page's head holds: its encoding, its policy, its title.

    Parameters
    ----------
    title : str
        Any text; it is escaped.
    style : str
        CSS.
    more : str
        Further elements, as HTML.
    policy : str
        What the page may load.
    """
    styles = f"<style>{style}</style>" if style else ""
    return f'<meta charset="utf-8">{policy_tag(policy)}{more}<title>{html.escape(title)}</title>{styles}'


def make_redirect(address: str) -> str:
    """Make a page that leads on to an address at once, and has a link to it."""
    target = html.escape(address)
    more = f'<meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0; url={target}">'
    head = make_head("Viewer", more=more)
    body = f'<p><a href="{target}">To the viewer</a></p>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'
