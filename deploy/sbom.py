"""What is compiled into the binary: a bill of materials (CycloneDX 1.6) and the notices of its crates.

    python deploy/sbom.py --out kopuro.cdx.json --licences crates-licences.txt

Only what ends up in the binary: no tools of the build, tests or macros. Exits 1 where something has a licence that this project
does not take (ACCEPTED), or the result is not valid by CycloneDX's own schema.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[1]
# Permissive ones; whoever adds one has read it.
ACCEPTED = {"MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "0BSD",
            "CC0-1.0", "Unlicense", "BSL-1.0", "Unicode-3.0", "CDLA-Permissive-2.0"}
# What browsers get from the portal: docs/portal.md, Vendored libraries.
VENDORED = [("uplot", "1.6.32", "MIT", "uplot"), ("@fluent/bundle", "0.19.1", "Apache-2.0", "fluent")]
SPDX = get_spdx_licensing()


def cargo(*arguments):
    done = subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def accepted(expression):
    """Whether one can take it under accepted licences alone."""
    if isinstance(expression, SPDX.OR):
        return any(accepted(part) for part in expression.args)
    if isinstance(expression, SPDX.AND):
        return all(accepted(part) for part in expression.args)
    return str(expression) in ACCEPTED


def packages():
    """What `cargo tree` finds in the binary, with what `cargo metadata` tells of it."""
    host = next(line.split()[1] for line in subprocess.run(
        ["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines() if line.startswith("host:"))
    tree = cargo("tree", "--edges", "normal,no-proc-macro", "--target", host, "--prefix", "none", "--format", "{p}", "--no-dedupe")
    wanted = {tuple(line.split()[:2]) for line in tree.splitlines()}
    told = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", host))
    found = {package["id"]: package for package in told["packages"] if (package["name"], f"v{package['version']}") in wanted}
    if len(found) != len(wanted):
        sys.exit(f"cargo tree has {len(wanted)} packages, cargo metadata knows {len(found)} of them")
    needs = {node["id"]: [d["pkg"] for d in node["deps"] if d["pkg"] in found and any(kind["kind"] is None for kind in d["dep_kinds"])]
             for node in told["resolve"]["nodes"] if node["id"] in found}
    return found, needs, told["resolve"]["root"]


def bill(found, needs, root):
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    licences, refused, components = LicenseFactory(), [], {}

    def licence(name, told):
        expression = SPDX.parse((told or "").replace("/", " OR "), validate=True) if told else None
        if expression is None or not accepted(expression):
            refused.append(f"{name}: {told or 'no licence'}")
        return [licences.make_from_string(str(expression))] if expression is not None else []

    for identifier, package in found.items():
        name, version = package["name"], package["version"]
        purl = PackageURL("cargo", name=name, version=version)
        checksum = checksums[name, version]
        components[identifier] = Component(
            type=ComponentType.APPLICATION if identifier == root else ComponentType.LIBRARY, name=name, version=version, purl=purl,
            bom_ref=str(purl), description=" ".join(package["description"].split()) if package["description"] else None,
            licenses=licence(name, package["license"]), hashes=[HashType(alg=HashAlgorithm.SHA_256, content=checksum)] if checksum else [])
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256((ROOT / "Cargo.lock").read_bytes()).hexdigest()))
    bom.metadata.component = components[root]
    vendored = []
    for name, version, told, _ in VENDORED:
        purl = PackageURL.from_string(f"pkg:npm/{name.replace('@', '%40')}@{version}")
        vendored.append(Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl, bom_ref=str(purl), licenses=licence(name, told)))
    bom.components.update([*(c for i, c in components.items() if i != root), *vendored])
    for identifier, on in needs.items():
        bom.register_dependency(components[identifier], [components[other] for other in on] + (vendored if identifier == root else []))
    if refused:
        sys.exit("licences that this project does not take (deploy/sbom.py, ACCEPTED):\n  " + "\n  ".join(refused))
    return bom


def notices(found, root):
    """Each text once, under the names of those that carry it."""
    texts = {}
    folders = [(f"{p['name']} {p['version']}", Path(p["manifest_path"]).parent) for i, p in found.items() if i != root]
    folders += [(f"{name} {version}", ROOT / "src/oversight/portal/site/vendor" / folder) for name, version, _, folder in VENDORED]
    for name, folder in sorted(folders):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")):
                texts.setdefault(path.read_text(errors="replace").strip(), []).append(name)
    return "\n\n".join(f"{'=' * 100}\n{', '.join(dict.fromkeys(names))}\n{'=' * 100}\n\n{text}" for text, names in texts.items()) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--licences", type=Path, required=True)
    arguments = parser.parse_args()
    found, needs, root = packages()
    text = make_outputter(bill(found, needs, root), OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not valid CycloneDX: {wrong}")
    arguments.out.write_text(text + "\n")
    arguments.licences.write_text(notices(found, root))
    print(f"{arguments.out}: {len(found) - 1} crates and {len(VENDORED)} other libraries, all of accepted licences")


if __name__ == "__main__":
    main()
