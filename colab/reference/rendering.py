"""What the reference does by itself: signatures as written, public names as links, equations as MathML.

Annotations are taken from the source, since jaxtyping's and the aliases of ``deform_jax.typing`` say more as they are
written than as the objects that they become. Equations become MathML, which browsers draw without any script or font
from elsewhere, so that the pages can be read offline.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform
from sphinx.util.logging import getLogger

import deform_jax
import deform_jax.typing

LOG = getLogger(__name__)
JAX = "https://docs.jax.dev/en/latest"
FLAX = "https://flax-linen.readthedocs.io/en/latest"
ELSEWHERE = {
    "Array": f"{JAX}/_autosummary/jax.Array.html",
    "jax.Array": f"{JAX}/_autosummary/jax.Array.html",
    "Partial": f"{JAX}/_autosummary/jax.tree_util.Partial.html",
    "P": f"{JAX}/jax.sharding.html",
    "Mesh": f"{JAX}/jax.sharding.html",
    "jax.tree_util.Partial": f"{JAX}/_autosummary/jax.tree_util.Partial.html",
    "nn.Module": f"{FLAX}/api_reference/flax.linen/module.html",
    "np.ndarray": "https://numpy.org/doc/stable/reference/generated/numpy.ndarray.html",
    "optax.GradientTransformation": "https://optax.readthedocs.io/en/latest/api/transformations.html",
}
JAXTYPING = ("Bool", "Float", "Float32", "Int", "Int16", "Int32", "Integer", "Key", "UInt8")
ELSEWHERE |= dict.fromkeys(JAXTYPING, "https://docs.kidger.site/jaxtyping/api/array/")
PYTHON = ("Any", "Callable", "Iterable", "Iterator", "Literal", "Mapping", "OrderedDict", "Sequence")
PYTHON += ("jnp.dtype", "os.PathLike", "pathlib.Path")
PARTS = {name: getattr(deform_jax, name) for name in deform_jax.__all__}


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (inline_equation, None), (equation, None))
    app.add_transform(PublicNames)
    app.connect("autodoc-process-signature", signature_as_written)
    app.connect("autodoc-process-docstring", fields_with_their_comments, priority=400)  # napoleon's is 500
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", refer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def inline_equation(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node))
    raise nodes.SkipNode


def equation(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _mathml(node: nodes.Element, **options: Any) -> str:
    try:
        return tex2mathml(node.astext(), **options)
    except MathError as error:
        LOG.warning("equation: %s", error, location=node)
        return node.astext()


def signature_as_written(_app: Sphinx, what: str, _name: str, value: Any, *_: Any) -> tuple[str, str] | None:
    """Return a function's arguments and result, or a class's fields with their defaults, as its source has them."""
    if what not in ("class", "function", "method"):
        return None
    if what == "class":
        return "" if getattr(value, "_is_protocol", False) else f"({', '.join(_fields(value))})", ""
    function = inspect.unwrap(getattr(value, "__func__", value))
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    inlined = _Inlined(function.__module__)
    node.args = inlined.visit(node.args)
    if what == "method" and node.args.args:
        node.args.args.pop(0)  # self or cls
    result = ast.unparse(inlined.visit(node.returns)) if node.returns else ""
    return f"({ast.unparse(node.args)})", result


def _fields(cls: type) -> Iterable[str]:
    """Return a class's fields in their order, those of its bases first, each as it was written last."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("deform_jax"):
            continue
        inlined = _Inlined(base.__module__)
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for node in body.body:
            if isinstance(node, ast.AnnAssign):
                made = isinstance(node.value, ast.Call)  # by dataclasses.field or struct.field
                default = "" if node.value is None or made else f" = {ast.unparse(node.value)}"
                name = ast.unparse(node.target)
                found[name] = f"{name}: {ast.unparse(inlined.visit(node.annotation))}{default}"
    return found.values()


class _Inlined(ast.NodeTransformer):
    """Annotations without the aliases of single modules, such as ``Normaliser``, which readers do not know."""

    def __init__(self, module: str) -> None:
        self.aliases = _aliases(module.split(".")[1])

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.aliases.get(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        return self.aliases.get(node.attr, node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        quoted = isinstance(node.value, str) and node.value in PARTS["data"].__all__  # a class within itself
        if quoted:
            return ast.Name(node.value)
        return ast.Constant(node.value.strip()) if isinstance(node.value, str) else node  # jaxtyping's " n"


@functools.cache
def _aliases(part: str) -> dict[str, ast.expr]:
    """{name: value} of the aliases of types that a part's modules define."""
    found = {}
    folder = pathlib.Path(deform_jax.__file__).with_name(part)
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            alias = isinstance(getattr(node, "value", None), ast.Subscript | ast.BinOp)
            if isinstance(target, ast.Name) and alias and target.id[0].isupper() and not target.id.isupper():
                found[target.id] = node.value
    return found


def fields_with_their_comments(_app: Sphinx, what: str, name: str, value: Any, _options: Any, lines: list[str]) -> None:
    """Append what stands below the fields of a class, or below a constant, where it is defined."""
    if what == "class":
        comments = ModuleAnalyzer.for_module(value.__module__).find_attr_docs()
        for (owner, field), text in comments.items():
            if owner == value.__name__ and field in getattr(value, "_fields", ()):
                lines += ["", f":ivar {field}: {' '.join(text).strip()}"]
    if what == "data":
        *_, part, constant = name.split(".")
        for module in [name for name in sys.modules if name.startswith(f"deform_jax.{part}.")]:
            text = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", constant))
            if text:
                lines[:] = text


def skip_fields(_app: Sphinx, _what: str, _name: str, value: Any, skip: bool, _options: Any) -> bool | None:
    """Leave out the fields of named tuples as members: they are among the class's variables."""
    return True if (getattr(value, "__doc__", None) or "").startswith("Alias for field number") else None


def refer(app: Sphinx, env: Any, node: addnodes.pending_xref, content: nodes.Element) -> nodes.Node | None:
    """Resolve what is elsewhere, and what the full name of just one object ends in: a type's, or ``warps.remap``."""
    target, domain = node["reftarget"], env.get_domain("py")
    if node.get("refdomain") != "py" or target in PYTHON:
        return content if target in PYTHON else None
    if target in ELSEWHERE:
        return nodes.reference("", "", content, internal=False, refuri=ELSEWHERE[target])
    found = [name for name in domain.objects if name.endswith(f".{target}")]
    if len(found) != 1:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, content)


class PublicNames(SphinxTransform):
    """Make a link of each public name in code type, such as ``remap`` among the warps or ``warps.remap`` anywhere."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            target = _public(literal)
            if target and not isinstance(literal.parent, addnodes.pending_xref | nodes.reference):
                link = addnodes.pending_xref("", refdomain="py", reftype="obj", reftarget=target, refexplicit=True)
                link["refdoc"] = self.env.docname
                literal.replace_self(link)
                link += literal


def _public(literal: nodes.literal) -> str | None:
    text = literal.astext()
    part, _, name = ("" if "->" in text else text.partition("(")[0]).rpartition(".")
    names: set[str] = set()
    described = literal.parent
    while described is not None:
        if isinstance(described, addnodes.desc):
            signature = next(iter(described.findall(addnodes.desc_signature)))
            names |= {signature["fullname"]} | {
                parameter.next_node(addnodes.desc_sig_name).astext()
                for parameter in signature.findall(addnodes.desc_parameter)
                if parameter.next_node(addnodes.desc_sig_name)
            }
            part = part or signature["module"].rpartition(".")[2]
        described = described.parent
    if name in names or part not in PARTS or name not in PARTS[part].__all__:
        return None
    return f"deform_jax.{part}.{name}"


for _part in PARTS:
    importlib.import_module(f"deform_jax.{_part}")
