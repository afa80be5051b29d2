"""Which SOP Classes the node stores, in which transfer syntaxes; how it answers proposals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pynetdicom import AllStoragePresentationContexts, build_context
from pynetdicom.presentation import PresentationContext

from dicom_node.dimse.pdu import AnsweredContext, AssociateRequest, Roles

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # Push Model (PS3.4 §J.3.5)
NOT_STORED = frozenset({VERIFICATION, STORAGE_COMMITMENT})
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

UNCOMPRESSED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
_J = "1.2.840.10008.1.2.4."
LOSSLESS = (
    _J + "70",  # JPEG Lossless, first-order prediction
    _J + "57",  # JPEG Lossless, process 14
    _J + "80",  # JPEG-LS lossless
    _J + "90",  # JPEG 2000 lossless
    _J + "92",  # JPEG 2000 Part 2 lossless
    _J + "201",  # HTJ2K lossless
    _J + "202",  # HTJ2K lossless, RPCL
    "1.2.840.10008.1.2.5",  # RLE
)
LOSSY = (
    _J + "50",  # JPEG Baseline
    _J + "51",  # JPEG Extended
    _J + "81",  # JPEG-LS near-lossless
    _J + "91",  # JPEG 2000
    _J + "93",  # JPEG 2000 Part 2
    _J + "203",  # HTJ2K
)
_VIDEO_KINDS = "100 100.1 101 101.1 102 102.1 103 103.1 104 104.1 105 105.1 106 106.1 107 108"
VIDEO = tuple(_J + kind for kind in _VIDEO_KINDS.split())
STORED_AS_RECEIVED = UNCOMPRESSED + LOSSLESS + LOSSY + VIDEO
"""In the order of preference, when a context offers several. Deflated (a small message may inflate
without bound) and big endian (retired) are taken only if configured."""

Answerable = Mapping[str, tuple[str, ...]]
"""Abstract syntax -> transfer syntaxes in the order of preference."""


def storage_classes() -> tuple[str, ...]:
    """The SOP Class UIDs of all storage services that pynetdicom knows, retired ones included."""
    return tuple(str(context.abstract_syntax) for context in AllStoragePresentationContexts)


def acceptor_contexts(
    extra_classes: Sequence[str] = (),
    extra_syntaxes: Sequence[str] = (),
    *,
    commitment: bool = False,
) -> list[PresentationContext]:
    """All contexts of the node as SCP: Verification, storage, and what the operator adds.

    commitment: Storage Commitment, too, in which a requestor may have either role.
    """
    syntaxes = list(dict.fromkeys((*STORED_AS_RECEIVED, *extra_syntaxes)))
    classes = dict.fromkeys((*storage_classes(), *extra_classes))
    contexts = [build_context(VERIFICATION, list(UNCOMPRESSED))]
    if commitment:
        contexts.append(build_context(STORAGE_COMMITMENT, list(UNCOMPRESSED)))
    contexts += [build_context(uid, syntaxes) for uid in classes if uid not in NOT_STORED]
    return contexts


def answerable(contexts: Sequence[PresentationContext]) -> Answerable:
    """The contexts as a table to look proposals up in, made once a server."""
    return {
        str(context.abstract_syntax): tuple(str(uid) for uid in context.transfer_syntax)
        for context in contexts
    }


def answer(
    request: AssociateRequest, table: Answerable
) -> tuple[list[AnsweredContext], dict[str, Roles]]:
    """Answer each proposed context, and the proposed roles (PS3.8 §9.3.3.2, PS3.7 §D.3.3.4).

    The node is SCP of all it answers: a requestor that wants to be SCP alone is refused, but for
    Storage Commitment, of which a result comes from an SCP that asks (PS3.4 §J.3.3.1.3).
    """
    answered: list[AnsweredContext] = []
    roles: dict[str, Roles] = {}
    for context in request.contexts:
        result, syntax = _result(context.abstract_syntax, context.transfer_syntaxes, table)
        proposed = request.roles.get(context.abstract_syntax)
        if result == 0 and proposed is not None:
            may_scp = proposed.scp and context.abstract_syntax == STORAGE_COMMITMENT
            roles[context.abstract_syntax] = Roles(scu=proposed.scu, scp=may_scp)
            result = 0 if proposed.scu or may_scp else 1  # user-rejection
        answered.append(
            AnsweredContext(
                context_id=context.context_id,
                result=result,
                abstract_syntax=context.abstract_syntax,
                transfer_syntax=syntax,
            )
        )
    return answered, roles


def _result(abstract_syntax: str, proposed: tuple[str, ...], table: Answerable) -> tuple[int, str]:
    """Result/Reason of PS3.8 Table 9-18; the syntax of a refused context is not significant."""
    supported = table.get(abstract_syntax)
    if supported is None:
        return 3, IMPLICIT_LITTLE
    wanted = frozenset(proposed)
    for syntax in supported:
        if syntax in wanted:
            return 0, syntax
    return 4, IMPLICIT_LITTLE
