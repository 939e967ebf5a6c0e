"""The settings of the Celery application, by variant."""

from __future__ import annotations

from typing import Any

from kombu import Queue

QUEUES = ("stock", "payment", "warehouse", "completed")

_SAFE = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_ignore_result": True,
    "task_repr_maxlevels": 1,
    "task_serializer": "orjson",
    "accept_content": ["orjson"],
    "broker_connection_retry_on_startup": True,
    "worker_disable_rate_limits": True,
    "worker_enable_remote_control": False,
    "worker_prefetch_multiplier": 500,
}

_BY_VARIANT: dict[str, dict[str, Any]] = {
    "durable": {**_SAFE, "task_publish_retry": False},  # the connection that is lost takes the message back, too
    "plain": {
        **_SAFE,
        "broker_transport_options": {"confirm_publish": True},
        "broker_pool_limit": 16,
        "worker_prefetch_multiplier": 32,
    },
    "default": {},
}

WORKER_OPTIONS = {
    "durable": ("--pool", "solo", "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
    "plain": (
        *("--pool", "threads", "-c", "16", "-l", "WARNING"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    "default": ("-l", "INFO"),
}


def settings(variant: str, namespace: str, broker_url: str) -> dict[str, Any]:
    """What `app.conf` is given."""
    arguments = {} if variant == "default" else {"x-queue-type": "quorum"}
    names = {short: f"{namespace}.{short}" for short in QUEUES}
    return {
        "broker_url": broker_url,
        "task_default_exchange": namespace,
        "task_queues": [Queue(name, routing_key=name, queue_arguments=arguments) for name in names.values()],
        "task_routes": {f"{short}.*": {"queue": name} for short, name in names.items()},
        **_BY_VARIANT[variant],
    }
