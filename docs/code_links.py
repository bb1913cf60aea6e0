"""A public name in code, such as ``inference.posterior(model)``, links to its page.

So the sources of the site name functions as README and docstrings do, without markup for links.
"""

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

NAME = re.compile(r"(?:cai\.)?((?:inference|models|plot)\.\w+|(?<=cai\.)\w+)((?:\.\w+)*)")
PAGES = {"inference", "models", "plot"}
WITHIN = (nodes.title, nodes.reference, addnodes.pending_xref)  # what links already, or is linked


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Wraps the names in the code of a page into references, which Sphinx resolves or warns of.

    But for the changelog, which tells of names that are gone.
    """
    if app.env.docname == "CHANGELOG":
        return
    for code in list(doctree.findall(nodes.literal)):
        name = NAME.match(code.astext())
        if name is None or name[1] in PAGES or any(isinstance(x, WITHIN) for x in above(code)):
            continue
        reference = addnodes.pending_xref(
            "", refdomain="py", reftype="obj", reftarget=f"cai.{name[1]}{name[2]}", refwarn=True
        )
        reference["refdoc"] = app.env.docname
        code.replace_self(reference)
        reference += code


def above(node: nodes.Node) -> list[nodes.Node]:
    """The nodes that a node lies in."""
    return [] if node.parent is None else [node.parent, *above(node.parent)]


def setup(app: Sphinx) -> dict[str, bool]:
    """Links names once a page is read."""
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
