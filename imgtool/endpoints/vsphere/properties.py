"""Properties of managed objects, asked for by explicit paths: what is unset is simply not in the answer.

Reading an attribute of pyvmomi's objects instead is a call each, and cannot tell an unset property from a broken connection.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from imgtool.endpoints.vsphere.login import Session, content

Properties = dict[str, Any]
PAGE = 500
"""Objects in one answer."""


def of(session: Session, reference: Any, paths: Sequence[str], what: str) -> Properties:
    """Properties of one object, by path. ``reference`` is an object of pyvmomi or (class name, id)."""
    found = of_all(session, [reference], paths, what)
    return next(iter(found.values()), {})


def of_all(session: Session, references: Sequence[Any], paths: Sequence[str], what: str) -> dict[str, Properties]:
    """The same of several of one class, by id."""
    if not references:
        return {}

    def ask(stub: Any) -> dict[str, Properties]:
        from pyVmomi import vmodl

        filters = vmodl.query.PropertyCollector
        objects = [bound(one, stub) for one in references]
        spec = filters.FilterSpec(objectSet=[filters.ObjectSpec(obj=one) for one in objects],
                                  propSet=[filters.PropertySpec(type=type(objects[0]), pathSet=list(paths))])
        return _pages(content(stub).propertyCollector, spec)

    return session.call(what, ask)


def all_of(session: Session, kind: str, paths: Sequence[str], what: str, *, everywhere: bool = False) -> dict[str, Properties]:
    """Properties of every object of a class (``VirtualMachine``) in the session's datacenter, by id. ``everywhere``: in all."""
    def ask(stub: Any) -> dict[str, Properties]:
        from pyVmomi import vim, vmodl

        filters = vmodl.query.PropertyCollector
        about = content(stub)
        root = about.rootFolder if everywhere or session.within is None else bound(("Datacenter", session.within), stub)
        view = about.viewManager.CreateContainerView(root, [getattr(vim, kind)], True)
        try:
            walk = filters.TraversalSpec(name="view", path="view", skip=False, type=vim.view.ContainerView)
            spec = filters.FilterSpec(objectSet=[filters.ObjectSpec(obj=view, skip=True, selectSet=[walk])],
                                      propSet=[filters.PropertySpec(type=getattr(vim, kind), pathSet=list(paths))])
            return _pages(about.propertyCollector, spec)
        finally:
            with suppress(Exception):  # it ends with the session
                view.Destroy()

    return session.call(what, ask)


def _pages(collector: Any, spec: Any) -> dict[str, Properties]:
    from pyVmomi import vmodl

    found: dict[str, Properties] = {}
    answer = collector.RetrievePropertiesEx([spec], vmodl.query.PropertyCollector.RetrieveOptions(maxObjects=PAGE))
    while answer is not None:
        for each in answer.objects:
            _check(each)
            found[each.obj._moId] = {prop.name: prop.val for prop in each.propSet}
        answer = collector.ContinueRetrievePropertiesEx(answer.token) if answer.token else None
    return found


def _check(each: Any) -> None:
    """Raises NotAuthenticated: a server may answer without a session, and leave out what it does not tell strangers."""
    from pyVmomi import vim

    for missing in each.missingSet or ():
        if isinstance(missing.fault, vim.fault.NotAuthenticated):
            raise missing.fault


def bound(reference: Any, stub: Any) -> Any:
    """An object that calls through ``stub``: of (class name, id), or of one that came through another session."""
    from pyVmomi import vim

    if isinstance(reference, tuple):
        kind, identity = reference
        return getattr(vim, kind)(identity, stub)
    return type(reference)(reference._moId, stub)
