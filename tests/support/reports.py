"""A status report of a server with several upstreams and users, and one of an older server."""

from __future__ import annotations

from typing import Any

FULL: dict[str, Any] = {
    "server": {"version": "1.2.3", "pid": 7, "uptime": 3725.0, "draining": False},
    "connections": 14,
    "streams": 31,
    "requests": {
        "running": 11,
        "queued": 3,
        "done": 12033,
        "failed": 2,
        "cancelled": 31,
        "interrupted": 0,
        "failovers": 3,
    },
    "tokens": 1_234_567,
    "tokens_per_second": 1103.4,
    "upstreams": [
        {
            "name": "gpu-a",
            "url": "http://a:8080",
            "state": "up",
            "ready": True,
            "reason": "",
            "model": "qwen-32b",
            "slots": 8,
            "busy": 5,
            "foreign": 1,
            "releasing": 1,
            "context": 32768,
            "restarts": 0,
            "failures": 4,
            "failovers": 3,
            "weight": 1.0,
            "roles": ["completions"],
            "tokens_per_second": 412.3,
        },
        {
            "name": "gpu-b",
            "state": "down",
            "reason": "connection refused",
            "slots": 4,
            "model": "qwen-32b",
            "busy": 0,
            "restarts": 2,
            "failures": 9,
            "failovers": 0,
        },
    ],
    "models": [
        {
            "name": "qwen-32b",
            "upstreams": ["gpu-a", "gpu-b"],
            "slots": 12,
            "free": 1,
            "context": 32768,
            "default": True,
        },
    ],
    "users": [
        {"name": "batch", "weight": 0.25, "running": 4, "queued": 1, "served": 883112},
        {"name": "", "weight": 1.0, "running": 7, "queued": 2, "served": 91},
    ],
    "queue": [
        {
            "user": "batch",
            "model": "qwen-32b",
            "priority": "low",
            "position": 1,
            "waited": 3.25,
            "wait": 75.0,
            "reason": "all 12 slots are in use",
        },
        {"user": "", "priority": "high", "position": 2},
    ],
    "store": {
        "level": "disk",
        "journal_records": 88123,
        "journal_bytes": 48_123_456,
        "results": 12031,
        "backlog": 0,
        "unstored": 1,
    },
    "analysis": {"backlog": 12, "indexed": 12019},
}

OLD: dict[str, Any] = {
    "server": {"version": "0.0.9", "pid": 7, "uptime": 2.5, "draining": True},
    "connections": 1,
    "requests": {"running": 3, "queued": 0, "done": 1, "failed": 0, "cancelled": 0},
    "tokens": 100,
    "upstreams": [
        {"url": "http://only:8080", "ready": True, "model": "demo", "slots": 4, "restarts": 0}
    ],
}
