"""The bill of materials: llcuda-net at its root, the licences of the documentation."""

from __future__ import annotations

from tools import sbom


def test_the_root_and_the_licences_are_added() -> None:
    part = {"bom-ref": "L1", "name": "Prometheus_Client", "description": "a line", "version": "1"}
    found = sbom.completed({"components": [part]}, "0.2.0", {"prometheus-client": "Apache-2.0"})
    root = found["metadata"]["component"]
    assert (root["name"], root["version"]) == ("llcuda-net", "0.2.0")
    (got,) = found["components"]
    assert got["licenses"][0]["expression"] == "Apache-2.0"
    assert "description" not in got
    assert found["dependencies"] == [{"ref": root["purl"], "dependsOn": ["L1"]}, {"ref": "L1"}]


def test_licences_are_those_of_the_documentation() -> None:
    known = sbom.licences()
    assert known["trio"] == "MIT OR Apache-2.0"
    assert "distribution" not in known or known["distribution"] == "licence"
