"""What a remedy is to reach: which routes, which connections."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ackward.model.report import Model


class RouteScope(Model):
    """Routes of a namespace: its default routes, or those to ``to`` (a CIDR)."""

    kind: Literal["routes"] = "routes"
    to: str | None = None

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return "all default routes" if self.to is None else f"routes to {self.to}"


class PortScope(Model):
    """TCP connections whose local or remote port is ``port``."""

    kind: Literal["port"] = "port"
    port: int = Field(ge=1, le=65535)

    @property
    def words(self) -> str:
        """The scope in a user's words."""
        return f"TCP port {self.port}"


Scope = Annotated[RouteScope | PortScope, Field(discriminator="kind")]
