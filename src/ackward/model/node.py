"""What ``ackward node status|install|uninstall`` print with ``--json``: facts of this node, read back."""

from __future__ import annotations

import enum
from typing import Final, Literal

from pydantic import Field

from ackward.model.report import Model

SCHEMA: Final = "ackward/node-status/1"


class Placement(enum.StrEnum):
    """Whether new pods meet our plugin."""

    IN_PLACE = "in place"
    ABSENT = "absent"
    #: There is no list that the runtime could take.
    NO_LIST = "no list"
    #: The list is not ours to change, or cannot be changed.
    REFUSED = "refused"


class Form(enum.StrEnum):
    """How an agent learns of new pods: from the plugin that asks it, or from the API server (``--no-cni``)."""

    PLUGIN = "plugin"
    DAEMON = "daemon"


class Entry(Model):
    """Our entry in the list that the runtime takes; ``words`` say why it is not in place."""

    state: Placement
    file: str | None = Field(default=None, description="the file that the runtime takes")
    words: str = ""


class Binary(Model):
    """The plugin's stub. ``current``: it is the one of this version."""

    path: str
    present: bool
    current: bool


class Agent(Model):
    """Who answers the stub."""

    socket: str
    answering: bool
    form: Form | None = Field(default=None, description="null: no agent answers, or it does not say")


class Marker(Model):
    """The file that tells pods which wait for it that new pods get quickack."""

    path: str
    present: bool


class PodOnRecord(Model):
    """A pod that got something. ``lacking``: what of it is not in force now, in words; empty: all is."""

    container_id: str
    ifname: str
    pod: str | None = Field(default=None, description="NAMESPACE/NAME, if the runtime told")
    netns: str
    alive: bool = Field(description="whether its namespace is there")
    lacking: tuple[str, ...] = ()


class NodeStatus(Model):
    """A node. ``ready``: new pods get what they ask for, with the plugin from their first packet."""

    schema_: Literal["ackward/node-status/1"] = Field(default=SCHEMA, alias="schema")
    ready: bool
    reasons: dict[str, str] = Field(
        default={}, description="why it is not ready, by part, with the next step: as /readyz says it"
    )
    binary: Binary
    entry: Entry
    agent: Agent
    marker: Marker
    missed: int = Field(description="ADDs that nobody answered and that wait for the agent")
    pods: tuple[PodOnRecord, ...]


class NodeChange(Model):
    """What an install or uninstall did, in words and in order."""

    schema_: Literal["ackward/node-change/1"] = Field(default="ackward/node-change/1", alias="schema")
    done: tuple[str, ...]
