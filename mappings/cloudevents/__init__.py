"""CloudEvents 1.0: alerts as events, in a body or in headers. `dialect.toml` describes the alert in an event's data, as
a configuration describes a dialect of its own; the envelope is in `event`.

CloudEvents defines no alert: the data are the gateway's own, after PD-CEF. It must not know what stands behind the
gateway.
"""

from __future__ import annotations

from dataclasses import replace

from gateway.own import shipped
from mappings.cloudevents.event import ENVELOPE

_REMARK = (
    "An upstream's `url` is the whole address of a receiver, and its `key` a bearer token. Batches are accepted; "
    "formats other than JSON are answered with 415. Without a key, `source`, `id`, `time` and content tell whether an "
    'event is a repeat. A dialect of your own can use the same envelope: `envelope = "cloudevents"`; start from the '
    'description in `mappings/cloudevents/dialect.toml`, with `auth = "none"` for a receiver that asks for no token.'
)

DIALECT = replace(shipped(__name__, {"cloudevents": ENVELOPE}), envelope=ENVELOPE, remark=_REMARK)
