"""What ae_config.toml may say of results on their way, and of what is kept: see schema."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from dicom_node.config.kinds import Days, Seconds, Section
from dicom_node.decide import confirmation, retention, retry


class Deliver(Section):
    """Sending results: how long to wait for a peer, and how often to try again."""

    connect_s: Seconds = Field(
        default=10.0, description="Wait for the connection and the association."
    )
    answer_s: Seconds = Field(default=60.0, description="Wait for the response to each C-STORE.")
    first_s: Seconds = Field(default=5.0, description="Wait after the first attempt that failed.")
    factor: float = Field(
        default=2.0,
        ge=1,
        le=10,
        allow_inf_nan=False,
        description="Each further wait is that much longer.",
    )
    max_s: Seconds = Field(default=3600.0, description="The longest wait between attempts.")
    jitter: float = Field(
        default=0.25,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Up to this share of a wait is added by chance, to spread the attempts.",
    )
    give_up_days: float = Field(
        default=3.0, gt=0, le=365, allow_inf_nan=False, description="After this no attempt is made."
    )

    proof_after_s: Seconds = Field(
        default=5.0,
        description='Wait after sending before a peer that offers "commit" or "query" is asked '
        "whether it has the result.",
    )
    report_s: Seconds = Field(
        default=3600.0,
        description='Wait for the report of a peer that offers "commit". Then it is asked by query '
        "if it offers that, else once more.",
    )
    listed_s: Seconds = Field(
        default=120.0,
        description="What a peer does not list so long after it was sent, is sent again.",
    )
    resend_max: int = Field(
        default=3,
        ge=0,
        le=100,
        description="How often a result is sent again that the peer says it lacks. Then a person "
        "decides.",
    )

    def policy(self) -> retry.Policy:
        """The values that decide.retry judges by."""
        return retry.Policy(
            first_s=self.first_s,
            factor=self.factor,
            max_s=self.max_s,
            give_up_s=self.give_up_days * 86400.0,
            jitter=self.jitter,
        )

    def proof(self) -> confirmation.Policy:
        """The values that decide.confirmation judges by."""
        return confirmation.Policy(
            back_off=self.policy(),
            ask_after_s=self.proof_after_s,
            listed_within_s=self.listed_s,
            report_within_s=self.report_s,
            resend_max=self.resend_max,
        )


class Retain(Section):
    """How long objects are kept. Only what is settled is removed: judged, processed, and each
    result proven to be where it belongs."""

    keep_days: Days = Field(
        default=0.0,
        description="Settled Series are removed so long after their last instance. 0: never.",
    )
    keep_days_unsettled: Days = Field(
        default=0.0,
        description="Series that wait for a person (incomplete, held, quarantined, parked, dead, "
        "unconfirmed) are removed after this, too. 0: never.",
    )
    promised_days: Days = Field(
        default=0.0,
        description="Series that a peer was promised are kept (Storage Commitment) are removed so "
        "long after the promise, and for no other reason. 0: never.",
    )
    free_gib: float = Field(
        default=0.0,
        ge=0,
        le=1024 * 1024,
        allow_inf_nan=False,
        description="With less than this free on the disk, the oldest settled Series are removed. "
        "0: never.",
    )
    verify_promises: Literal["size", "digest"] = Field(
        default="size",
        description="What a file is checked for before a peer is promised that it is kept: that it "
        "is there in its length, or all its bytes.",
    )

    def policy(self, routes: Collection[str]) -> retention.Policy:
        """The values that decide.retention judges by; routes: that delete after delivery."""
        return retention.Policy(
            keep_s=_days_s(self.keep_days),
            unsettled_s=_days_s(self.keep_days_unsettled),
            promised_s=_days_s(self.promised_days),
            routes=frozenset(routes),
        )


def _days_s(days: float) -> float | None:
    return days * 86400.0 if days else None
